"""What a simulated machine has: cores that threads share, threads that do one thing after the other, and links."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["Clock", "Link", "Processors", "Thread"]


class Clock:
    """Events in the order of their times."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, time: float, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (time, self._count, action))

    def run(self) -> None:
        events = self._events
        while events:
            self.now, _, action = heapq.heappop(events)
            action()


@dataclass(eq=False)
class _Job:
    left: float  # seconds, on cores of its own
    threads: int
    computing: bool
    then: Callable[[], None]
    rate: float = 1.0  # seconds of it done in a second, at present


class Processors:
    """The cores of a machine, which all that runs on it shares; without a number there are enough."""

    def __init__(self, clock: Clock, cores: int | None, crowding: float) -> None:
        self._enough = cores is None
        self._clock, self._cores, self._crowding = clock, cores or 1, crowding
        self._jobs: list[_Job] = []
        self._since = 0.0
        self._plans = 0

    def run(self, seconds: float, then: Callable[[], None], threads: int = 1, computing: bool = False) -> None:
        """Calls `then` when a job is done."""
        if self._enough or seconds <= 0:
            self._clock.at(self._clock.now + seconds, then)
            return
        self._advance()
        self._jobs.append(_Job(seconds, threads, computing, then))
        self._plan()

    def _advance(self) -> None:
        passed, self._since = self._clock.now - self._since, self._clock.now
        for job in self._jobs:
            job.left -= passed * job.rate

    def _plan(self) -> None:
        """Rates from now on, and when the first job will end."""
        self._plans += 1
        jobs = self._jobs
        if not jobs:
            return
        wanted = 0
        for job in jobs:
            wanted += job.threads
        alone = min(1.0, self._cores / wanted)
        together = 1 / math.ceil(wanted / self._cores)  # threads that wait for each other: the slowest counts
        crowded = len(jobs) > 1 and wanted >= self._cores
        first = math.inf
        for job in jobs:
            rate = together if job.threads > 1 else alone
            job.rate = rate / self._crowding if crowded and job.computing else rate
            first = min(first, job.left / job.rate)
        self._clock.at(self._clock.now + max(first, 0.0), partial(self._end, self._plans))

    def _end(self, plan: int) -> None:
        if plan != self._plans:  # a job has come since
            return
        self._advance()
        most = max(min(job.left for job in self._jobs), 1e-12)
        done = [job for job in self._jobs if job.left <= most]
        self._jobs = [job for job in self._jobs if job.left > most]
        self._plan()
        for job in done:
            job.then()


class Thread:
    """Does one thing after the other, on a machine's cores."""

    def __init__(self, processors: Processors) -> None:
        self._processors = processors
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._busy = False

    def run(self, seconds: float, then: Callable[[], None]) -> None:
        """Calls `then` when this is done, and all that was asked for before."""
        if not self._busy and seconds <= 0:
            then()
            return
        self._waiting.append((seconds, then))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            seconds, then = self._waiting.popleft()
            self._processors.run(seconds, partial(self._ended, then))

    def _ended(self, then: Callable[[], None]) -> None:
        then()
        self._next()


class Link:
    """One direction of a machine's link."""

    __slots__ = ("_free",)

    def __init__(self) -> None:
        self._free = 0.0

    def take(self, now: float, seconds: float) -> float:
        """When a message is through that asks now."""
        self._free = max(self._free, now) + seconds
        return self._free
