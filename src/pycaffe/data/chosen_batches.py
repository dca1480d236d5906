"""Some of the batches of a source, by number: each of several workers that share one source makes only its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pycaffe.data.prefetch import Batch, BatchSource

__all__ = ["ChosenBatches"]


class ChosenBatches(BatchSource):
    """The batches of `source` with the given numbers. The others are passed over: planned, never made.

    So a batch of a number is the same whoever makes it: random numbers are drawn for those that are passed over, too.

    Args:
        source: every batch, in order.
        numbers: which ones; they rise.
        position: the number of the batch that the source would plan next.
    """

    def __init__(self, source: BatchSource, numbers: Iterator[int], position: int = 0) -> None:
        self._source = source
        self._numbers = numbers
        self._position = position

    def plan(self) -> Any:
        wanted = next(self._numbers)
        while self._position < wanted:
            self._position += 1  # before anything can fail, so that a bad batch is passed over as well
            self._source.skip()
        self._position += 1
        return self._source.plan()

    def make(self, plan: Any) -> Batch:
        return self._source.make(plan)

    def state(self) -> dict[str, Any]:
        return {"position": self._position, "source": self._source.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Where the source is; which numbers come next is not part of a state."""
        self._source.restore(state["source"])
        self._position = int(state["position"])
