"""Which item is where, how often it ran, and what is sent next. No process, no pipe, no clock.

    add ─→ waiting ──assign──→ queued in a worker ──finished──→ gone
              ▲                    │ died
              ├── behind the batch that ran: unharmed, first in line again
              └── of the batch that ran: suspects, which run again alone; a death alone counts as an attempt

The oldest batch of a worker is the one that runs; what stands behind it only saves the worker a wait for the pipe.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

__all__ = ["Schedule", "Task"]

DEPTH = 2  # batches a worker holds: one that runs and one that waits in its pipe


@dataclass(eq=False)
class Task:
    """One item on its way.

    number: unique in the pool's life, so that an answer of an abandoned job is never taken for one of the next.
    index: the item's place in its job.
    payload: what a worker is sent.
    suspect: whether a worker died while it ran; then it runs alone.
    deaths: workers that died while they ran nothing else.
    abandoned: whether nobody waits for it any more; then it is not run again.
    """

    number: int
    index: int
    item: Any
    payload: bytes
    suspect: bool = False
    deaths: int = 0
    abandoned: bool = False

    @property
    def attempts(self) -> int:
        """Runs alone, the one that goes on included; 1 at least."""
        return self.deaths + 1


class Schedule:
    """The bookkeeping of a pool.

    Args:
        batch_size: at most so many items go together.
        retries: an item is given up after `retries` + 1 deaths alone.
    """

    def __init__(self, batch_size: int, retries: int) -> None:
        self.batch_size = batch_size
        self.retries = retries
        self._waiting: deque[Task] = deque()
        self._suspects: deque[Task] = deque()
        self._queues: dict[int, deque[list[Task]]] = {}
        self.unfinished = 0
        """Items that were added and are neither finished nor given up."""

    def room(self, workers: int) -> int:
        """How many more items to read from the input, for so many workers: enough to fill them, and no more."""
        return max(0, workers * DEPTH * self.batch_size - self.unfinished)

    def add(self, task: Task) -> None:
        """Takes an item in."""
        self._waiting.append(task)
        self.unfinished += 1

    def start(self, worker: int) -> None:
        """A worker is there and idle."""
        self._queues[worker] = deque()

    def assign(self) -> list[tuple[int, list[Task]]]:
        """What to send now: (worker, batch), in order. The items count as sent."""
        orders = []
        while (worker := self._least_busy()) is not None and (batch := self._next_batch(worker)):
            self._queues[worker].append(batch)
            orders.append((worker, batch))
        return orders

    def _least_busy(self) -> int | None:
        free = [worker for worker, queue in self._queues.items() if len(queue) < DEPTH]
        return min(free, key=lambda worker: len(self._queues[worker]), default=None)

    def _next_batch(self, worker: int) -> list[Task]:
        if self._suspects:
            return [self._suspects.popleft()]
        idle = not self._queues[worker]
        # An idle worker takes its share of what little there is; to stand behind another batch, a batch has to be full.
        share = -(-len(self._waiting) // max(1, len(self._queues)))
        size = min(self.batch_size, share) if idle else self.batch_size
        if not size or len(self._waiting) < size:
            return []
        return [self._waiting.popleft() for _ in range(size)]

    def finished(self, worker: int) -> list[Task]:
        """A worker has answered its oldest batch; returns that batch."""
        batch = self._queues[worker].popleft()
        self.unfinished -= len(batch)
        return batch

    def died(self, worker: int) -> list[Task]:
        """A worker is gone: its items wait again. Returns those that are given up (one at most)."""
        queue = self._queues.pop(worker, deque())
        ran = queue.popleft() if queue else []
        for task in reversed([task for batch in queue for task in batch]):
            self._again(task, self._suspects if task.suspect else self._waiting)
        if len(ran) == 1:
            ran[0].deaths += 1
            if ran[0].deaths > self.retries:
                self.unfinished -= 1
                return ran
        for task in reversed(ran):
            task.suspect = True
            self._again(task, self._suspects)
        return []

    def _again(self, task: Task, line: deque[Task]) -> None:
        if task.abandoned:
            self.unfinished -= 1
        else:
            line.appendleft(task)

    def running(self, worker: int) -> list[Task]:
        """The batch that a worker runs; empty if it is idle or not there."""
        queue = self._queues.get(worker)
        return queue[0] if queue else []

    def abandon(self) -> None:
        """Nobody waits for any item any more: what was sent still has to be answered, the rest is dropped."""
        self.unfinished -= len(self._waiting) + len(self._suspects)
        self._waiting.clear()
        self._suspects.clear()
        for queue in self._queues.values():
            for batch in queue:
                for task in batch:
                    task.abandoned = True
