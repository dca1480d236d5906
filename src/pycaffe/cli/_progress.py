"""Progress on standard error: one line that is redrawn on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TextIO

import click

SHOWN_FAILURES = 10
TERMINAL_SECONDS, LOG_SECONDS = 0.1, 5.0
WORKERS_SECONDS = 2.0  # between two looks at the workers: reading their memory takes milliseconds


class Workers(NamedTuple):
    """What a pool says of its workers: how often one was replaced, and each one's own memory in bytes."""

    restarts: int
    memory: list[int]


class Progress:
    """Counts images as they come.

    Args:
        look: asks the pool for its workers.
        stream: where to write; standard error if None.
        clock: seconds; for tests.

    Attributes:
        done: images that came to a result here, with those that failed.
        failed: of them.
        skipped: images that were named, and were there already or were named twice.
        total: all that are named; None as long as nobody knows.
        workers: as they were at the last look.
        peak: the most memory that a worker was seen with.
    """

    def __init__(
        self,
        look: Callable[[], Workers],
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = self.failed = self.skipped = 0
        self.total: int | None = None
        self.workers = Workers(0, [])
        self.peak = 0
        self._look = look
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._start = self._shown = clock()
        self._looked = self._start - WORKERS_SECONDS

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._start

    @property
    def rate(self) -> float:
        """Images a second, from the beginning."""
        return self.done / max(self.seconds, 1e-9)

    def advance(self, path: str, error: BaseException | None) -> None:
        """Counts one image; the first few failures are shown."""
        self.done += 1
        if error is not None:
            self.failed += 1
            if self.failed <= SHOWN_FAILURES:
                self._line(f"failed: {path!r}: {error}")
            if self.failed == SHOWN_FAILURES + 1:
                self._line("failed: more; the records say which")
        now = self._clock()
        if now - self._looked >= WORKERS_SECONDS:
            self._looked = now
            self.look()
        if now - self._shown >= (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            self._shown = now
            self._show()

    def look(self) -> None:
        """Looks at the workers now."""
        self.workers = self._look()
        self.peak = max([self.peak, *self.workers.memory])

    def close(self) -> None:
        """Clears the line on a terminal."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _show(self) -> None:
        parts = [f"{self.done} images"]
        if self.total is not None:
            total = max(self.total - self.skipped, self.done)
            left = (total - self.done) / max(self.rate, 1e-9)
            parts = [f"{self.done}/{total} images", f"{100 * self.done // max(1, total)} %", f"{duration(left)} left"]
        parts += [f"{self.rate:.1f} images/s", f"{self.failed} failed"]
        if self.workers.restarts:
            parts.append(f"{self.workers.restarts} restarts")
        if self.workers.memory:
            parts.append(f"{max(self.workers.memory) / 1e6:.0f} MB a worker")
        text = "  ".join(parts)
        self._write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")

    def _line(self, text: str) -> None:
        self._write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
        self._stream.flush()


class Counting:
    """Counts, in a thread, how many paths there are: the job has begun by then, and does not wait for it."""

    def __init__(self, paths: Callable[[], Iterable[str]], found: Callable[[int], None]) -> None:
        self._paths = paths
        self._found = found
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._count, name="pycaffe-count", daemon=True)

    def _count(self) -> None:
        count = 0
        with contextlib.suppress(OSError, click.UsageError):  # the job itself says so
            for _ in self._paths():
                if self._ended.is_set():
                    return
                count += 1
            self._found(count)

    def __enter__(self) -> Counting:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._thread.join()


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
