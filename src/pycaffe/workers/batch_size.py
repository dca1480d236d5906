"""How many items go through one forward when the user does not say: found by trying, while real items run.

Sizes are tried in turn, 1, 2, 4, ..., each for a few batches, until two in turn do not pay or the next would take too
much memory; then the best of them stays. What counts is the time of one item: its share of the forward, and of what a
batch costs the pool however large it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["LARGEST", "choose_batch_size"]

LARGEST = 64
TRIALS = 4  # batches a size
OVERHEAD = 0.5e-3  # s of a core that a batch costs beside its forward: two messages (0.25 ms on 2 cores, empty net)
WORTH = 0.97  # a larger size has to bring an item's time below so much of the best before it
# Bytes that one worker may have of them: 16 items of CaffeNet, 100 MB of its own in all. At half of that images take
# 1.1 times as long; 32 at a time gain another 2 % and take 167 MB (benchmarks/bench_pool.py, "batch").
ACTIVATIONS = 32 << 20


def choose_batch_size(
    seconds: Mapping[int, Sequence[float]], activations: int, largest: int = LARGEST
) -> tuple[int, bool]:
    """The size of the next batches, and whether it is settled.

    Args:
        seconds: by size, what the forwards of whole batches took so far; without the first one of each worker.
        activations: bytes of the net's blobs for one item; 0 where unknown.
        largest: the most that is possible: 1 for a net that mixes the items of a batch.
    """
    if activations:
        largest = min(largest, max(1, ACTIVATIONS // activations))
    best, size = 1, 1
    while size <= largest:
        if len(seconds.get(size, ())) < TRIALS:
            return size, False
        if _item(size, seconds[size]) < WORTH * _item(best, seconds[best]):
            best = size
        elif size >= 4 * best:  # not at the first that does not pay: somebody else may have been busy
            break
        size *= 2
    return best, True


def _item(size: int, seconds: Sequence[float]) -> float:
    """The time of one item: the fastest trial, since whatever disturbs a trial makes it slower."""
    return (min(seconds) + OVERHEAD) / size
