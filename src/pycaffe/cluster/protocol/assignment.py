"""Which batches of the source a worker reads, also after workers came and went. Pure arithmetic.

Batches are numbered from the start of the run: 0, 1, 2, … Of those that nobody has consumed, u_0, u_1, …, the worker of
rank w out of W reads u_{k · W + w} as its k-th. So the W batches of one step follow each other in the source, as in the
joined batch of one process.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Assignment", "CountedSteps"]


@dataclass(frozen=True)
class Assignment:
    """Who reads what, from one change of the membership to the next.

    Attributes:
        workers: W.
        iter_size: how many batches a worker reads in a step.
        first: every batch before it is consumed.
        done: batches after it that are consumed, ascending.
    """

    workers: int
    iter_size: int = 1
    first: int = 0
    done: tuple[int, ...] = ()

    def batches(self, rank: int, clock: int) -> list[int]:
        """The numbers of the batches that a worker reads in its step `clock`, counted from this assignment's begin."""
        reads = range(clock * self.iter_size, (clock + 1) * self.iter_size)
        return [self._left(read * self.workers + rank) for read in reads]

    def after(self, clocks: Sequence[int], workers: int) -> Assignment:
        """The assignment of another number of workers, once each rank has done so many steps of this one."""
        together = min(clocks) * self.iter_size  # reads that all ranks have done, which leave no gap
        done = set(self.done)
        for rank, clock in enumerate(clocks):
            for read in range(together, clock * self.iter_size):
                done.add(self._left(read * self.workers + rank))
        first = self._left(together * self.workers)
        while first in done:
            first += 1
        return Assignment(workers, self.iter_size, first, tuple(sorted(batch for batch in done if batch > first)))

    def _left(self, place: int) -> int:
        """u_place: the place-th of the batches that are not consumed."""
        # How many of those left stand before each that is done.
        before = [batch - self.first - index for index, batch in enumerate(self.done)]
        return self.first + place + bisect_right(before, place)


@dataclass(frozen=True)
class CountedSteps:
    """Steps of one generation whose gradients are in the parameters: servers have counted them for every piece.

    Attributes:
        generation: of the run.
        assignment: who read what.
        first, end: by rank: the clocks of the first step, and of the one after the last.
    """

    generation: int
    assignment: Assignment
    first: tuple[int, ...]
    end: tuple[int, ...]

    def batches(self) -> list[int]:
        """The numbers of the batches that these steps have read, by rank and clock."""
        steps = [(rank, clock) for rank, ends in enumerate(zip(self.first, self.end)) for clock in range(*ends)]
        return [batch for rank, clock in steps for batch in self.assignment.batches(rank, clock)]
