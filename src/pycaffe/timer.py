"""The original's stopwatch (benchmark.hpp)."""

from __future__ import annotations

import logging
import time

__all__ = ["Timer"]

logger = logging.getLogger("pycaffe.timer")


class Timer:
    """Measures wall-clock time between `start` and `stop`; `ms` reads it."""

    def __init__(self) -> None:
        self._start: float | None = None
        self._elapsed = 0.0

    def start(self) -> None:
        """Starts, or starts again."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """Stops; nothing happens where the timer does not run."""
        if self._start is not None:
            self._elapsed = time.perf_counter() - self._start
            self._start = None

    @property
    def ms(self) -> float:
        """Milliseconds; stops a running timer. 0 where it never ran."""
        if self._start is None and self._elapsed == 0.0:
            logger.warning("Timer has never been run before reading time.")
        self.stop()
        return self._elapsed * 1e3
