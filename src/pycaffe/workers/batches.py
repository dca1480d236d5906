"""Items and batches, and the line in which they wait for a worker. No process, no clock: times are handed in.

A batch whose worker died runs again as it was. If that kills a worker too, it is split in halves, and each half that
kills a worker is split again, until the item that does it runs alone; only then does a death count as its attempt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["Batch", "Item", "Line"]


@dataclass(eq=False)
class Item:
    """One item on its way.

    number: unique in the pool's life.
    index: its place among its owner's items.
    value: what the worker is sent.
    owner: who waits for the result.
    added: when it came.
    deaths: workers that died while they ran it alone.
    abandoned: whether nobody waits for it any more; then it is not run again.
    """

    number: int
    index: int
    value: Any
    owner: object
    added: float
    deaths: int = 0
    abandoned: bool = False


@dataclass(eq=False)
class Batch:
    """Items that are run together.

    deaths: workers that died while they ran exactly these; a half begins with the one that it was split for.
    """

    items: list[Item]
    deaths: int = 0

    @property
    def suspect(self) -> bool:
        """Whether a worker died while it ran this, or one of its items."""
        return self.deaths > 0 or any(item.deaths for item in self.items)

    def split(self) -> list[Batch]:
        """Its halves, each suspect: another death splits them at once."""
        middle = (len(self.items) + 1) // 2
        return [Batch(half, 1) for half in (self.items[:middle], self.items[middle:]) if half]

    def singles(self) -> list[Batch]:
        """Each item alone."""
        return [Batch([item], 1) for item in self.items]


class Line:
    """What waits for a worker: batches that run again first, then items in the order in which they came.

    Args:
        max_wait: an item waits so many seconds for others to fill a batch with.
    """

    def __init__(self, max_wait: float) -> None:
        self.max_wait = max_wait
        self._again: deque[Batch] = deque()
        self._items: deque[Item] = deque()
        self._hurried = -1  # items up to this number wait for no others

    def __len__(self) -> int:
        return len(self._items) + sum(len(batch.items) for batch in self._again)

    def add(self, items: Iterable[Item]) -> None:
        """New items, at the end."""
        self._items.extend(items)

    def hurry(self) -> None:
        """No others come for now: what waits goes as soon as a worker is idle, whole batches or not."""
        if self._items:
            self._hurried = self._items[-1].number

    def again(self, batches: Iterable[Batch]) -> None:
        """Batches that run again, before all others and in this order; without the items that nobody waits for."""
        for batch in reversed(list(batches)):
            batch.items = [item for item in batch.items if not item.abandoned]
            if batch.items:
                self._again.appendleft(batch)

    def take(self, most: int, *, idle: bool, workers: int, now: float, apart: bool = False) -> Batch | None:
        """The next batch for a worker, of at most `most` items; None if there is none for it yet.

        A busy worker takes only a whole batch, to stand behind the one that runs. An idle one also takes its share,
        among so many workers, of items that have waited long enough. `apart`: a suspect batch is for an idle one alone.
        """
        if self._again and apart and not idle and self._again[0].suspect:
            return None
        if self._again:
            return self._take_again(most)
        if len(self._items) >= most:
            return Batch([self._items.popleft() for _ in range(most)])
        if not idle or not self._items or now < self.due():
            return None
        share = -(-len(self._items) // max(1, workers))
        return Batch([self._items.popleft() for _ in range(share)])

    def _take_again(self, most: int) -> Batch:
        batch = self._again.popleft()
        if len(batch.items) > most:  # it was made for a worker that takes more
            self._again.appendleft(Batch(batch.items[most:], batch.deaths))
            batch = Batch(batch.items[:most], batch.deaths)
        return batch

    def due(self) -> float:
        """When the first item has waited long enough; infinity if none waits."""
        if not self._items:
            return float("inf")
        first = self._items[0]
        return float("-inf") if first.number <= self._hurried else first.added + self.max_wait

    def abandon(self, owner: object) -> int:
        """Drops the items of an owner; how many there were."""
        before = len(self)
        self._items = deque(item for item in self._items if item.owner is not owner)
        for batch in self._again:
            batch.items = [item for item in batch.items if item.owner is not owner]
        self._again = deque(batch for batch in self._again if batch.items)
        return before - len(self)
