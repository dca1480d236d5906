"""What a pool looks like at one moment."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pycaffe.workers.memory import memory_of
from pycaffe.workers.state_machine import PoolState
from pycaffe.workers.worker_state import State

__all__ = ["PoolStats", "WorkerStats", "with_memory", "without_memory"]


@dataclass(frozen=True)
class WorkerStats:
    """One worker.

    Attributes:
        pid: its process; None as long as it is not known.
        device: "cpu" or "cuda:N".
        state: "starting", "idle", "busy", "draining" (it will be replaced) or "dead".
        items: that it and its predecessors in the same place have answered.
        restarts: how often it was replaced.
        own_memory: bytes that its process shares with no other (USS); None where that is not known, or where the
            worker has no process of its own.
    """

    pid: int | None
    device: str
    state: State
    items: int
    restarts: int
    own_memory: int | None


@dataclass(frozen=True)
class PoolStats:
    """A pool.

    Attributes:
        workers: each of them.
        queue: items that wait for a worker.
        unfinished: items that wait, run, or stand behind the batch that runs.
        rate: results a second, over the last seconds.
        batch_size: items that go together at most; found by trying where the user gave none.
        batch_sizes: how many batches of each size were sent.
    """

    workers: list[WorkerStats]
    queue: int
    unfinished: int
    rate: float
    batch_size: int
    batch_sizes: dict[int, int]


def without_memory(state: PoolState, now: float) -> PoolStats:
    """The state's own part; made by the driving thread."""
    workers = [
        WorkerStats(worker.pid, worker.device, worker.state, worker.items, worker.restarts, None)
        for worker in state.workers
    ]
    sizes = dict(sorted(state.batch_sizes.items()))
    return PoolStats(workers, state.waiting(), state.unfinished, state.rate(now), state.batch_size, sizes)


def with_memory(stats: PoolStats) -> PoolStats:
    """The same with the workers' memory, which takes a millisecond each to read."""
    workers = []
    for worker in stats.workers:
        memory = memory_of(worker.pid) if worker.pid is not None and worker.pid != os.getpid() else None
        own = memory.own if memory is not None else None
        workers.append(WorkerStats(worker.pid, worker.device, worker.state, worker.items, worker.restarts, own))
    return PoolStats(workers, stats.queue, stats.unfinished, stats.rate, stats.batch_size, stats.batch_sizes)
