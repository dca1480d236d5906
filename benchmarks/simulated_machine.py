"""What a simulated machine has: cores that threads share, threads that do one thing after the other, and links."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
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


class _Job:
    __slots__ = ("computing", "left", "rate", "then", "threads")

    def __init__(self, left: float, threads: int, computing: bool, then: Callable[[], None]) -> None:
        self.left = left  # seconds, on cores of its own
        self.threads = threads
        self.computing = computing
        self.then = then
        self.rate = 1.0  # seconds of it done in a second, at present


class Processors:
    """The cores of a machine, which all that runs on it shares; without a number there are enough."""

    def __init__(self, clock: Clock, cores: int | None, crowding: float) -> None:
        self._enough = cores is None
        self._clock, self._cores, self._crowding = clock, cores or 1, crowding
        self._jobs: list[_Job] = []
        self._wanted = 0  # threads of all jobs
        self._since = 0.0
        self._plans = 0
        self._ending = False

    def run(self, seconds: float, then: Callable[[], None], threads: int = 1, computing: bool = False) -> None:
        """Calls `then` when a job is done."""
        clock = self._clock
        if self._enough or seconds <= 0:
            clock.at(clock.now + seconds, then)
            return
        if self._since != clock.now:
            self._advance()
        self._jobs.append(_Job(seconds, threads, computing, then))
        self._wanted += threads
        if not self._ending:  # else there is a plan once all that have ended have said what comes next
            self._plan()

    def _advance(self) -> None:
        now = self._clock.now
        passed, self._since = now - self._since, now
        for job in self._jobs:
            job.left -= passed * job.rate

    def _plan(self) -> None:
        """Rates from now on, and when the first job will end."""
        self._plans += 1
        jobs, wanted, cores = self._jobs, self._wanted, self._cores
        if not jobs:
            return
        alone = together = 1.0
        if wanted > cores:
            alone = cores / wanted
            together = 1 / math.ceil(wanted / cores)  # threads that wait for each other: the slowest counts
        crowded = wanted >= cores and len(jobs) > 1
        first = math.inf
        for job in jobs:
            rate = together if job.threads > 1 else alone
            if crowded and job.computing:
                rate /= self._crowding
            job.rate = rate
            left = job.left / rate
            if left < first:
                first = left
        self._clock.at(self._clock.now + (first if first > 0.0 else 0.0), partial(self._end, self._plans))

    def _end(self, plan: int) -> None:
        if plan != self._plans:  # a job has come since
            return
        self._advance()
        jobs = self._jobs
        most = max(min([job.left for job in jobs]), 1e-12)
        done = [job for job in jobs if job.left <= most]
        self._jobs = [job for job in jobs if job.left > most]
        self._ending = True
        for job in done:
            self._wanted -= job.threads
            job.then()
        self._ending = False
        self._plan()


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
