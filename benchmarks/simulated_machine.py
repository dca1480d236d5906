"""What a simulated machine has: cores that threads share, threads that do one thing after the other, and links."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass
class _Job:
    left: float  # seconds, on cores of its own
    threads: int
    computing: bool
    then: Callable[[], None]


class Processors:
    """The cores of a machine, which all that runs on it shares; without a number there are enough."""

    def __init__(self, clock: Clock, cores: int | None, crowding: float) -> None:
        self._clock, self._cores, self._crowding = clock, cores, crowding
        self._jobs: list[_Job] = []
        self._since = 0.0
        self._plans = 0

    def run(self, seconds: float, then: Callable[[], None], threads: int = 1, computing: bool = False) -> None:
        """Calls `then` when a job is done."""
        if self._cores is None or seconds <= 0:
            self._clock.at(self._clock.now + seconds, then)
            return
        self._advance()
        self._jobs.append(_Job(seconds, threads, computing, then))
        self._plan()

    def _rate(self, job: _Job) -> float:
        cores = self._cores or 1
        wanted = sum(other.threads for other in self._jobs)
        rate = min(1.0, cores / wanted)
        if job.threads > 1:  # they wait for each other at the end of each loop: the slowest counts
            rate = 1 / math.ceil(wanted / cores)
        crowded = job.computing and len(self._jobs) > 1 and wanted >= cores
        return rate / self._crowding if crowded else rate

    def _advance(self) -> None:
        passed, self._since = self._clock.now - self._since, self._clock.now
        for job, rate in [(job, self._rate(job)) for job in self._jobs]:
            job.left -= passed * rate

    def _plan(self) -> None:
        self._plans += 1
        plan = self._plans
        if self._jobs:
            first = min(job.left / self._rate(job) for job in self._jobs)
            self._clock.at(self._clock.now + max(first, 0.0), lambda: self._end(plan))

    def _end(self, plan: int) -> None:
        if plan != self._plans:  # a job has come since
            return
        self._advance()
        least = min(job.left for job in self._jobs)
        done = [job for job in self._jobs if job.left <= max(least, 1e-12)]
        self._jobs = [job for job in self._jobs if job not in done]
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
        self._waiting.append((seconds, then))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._busy:
            seconds, then = self._waiting.popleft()
            self._processors.run(seconds, lambda: self._ended(then))

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
