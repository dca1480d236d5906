"""Progress on standard error: one line that is redrawn on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

SHOWN_FAILURES = 10
TERMINAL_SECONDS, LOG_SECONDS = 0.1, 5.0


class Progress:
    """Counts images as they come.

    Args:
        total: how many there will be.
        stream: where to write; standard error if None.
        clock: seconds; for tests.
    """

    def __init__(self, total: int, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.done = 0
        self.failed = 0
        self._total = total
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._start = self._shown = clock()

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
        if now - self._shown >= (TERMINAL_SECONDS if self._terminal else LOG_SECONDS):
            self._shown = now
            self._show()

    def close(self) -> None:
        """Clears the line on a terminal."""
        if self._terminal:
            self._write("\r\x1b[K")

    def _show(self) -> None:
        left = (self._total - self.done) / max(self.rate, 1e-9)
        text = (
            f"{self.done}/{self._total} images  {100 * self.done // max(1, self._total)} %  {self.rate:.1f} images/s  "
            f"{duration(left)} left  {self.failed} failed"
        )
        self._write(f"\r\x1b[K{text}" if self._terminal else f"{text}\n")

    def _line(self, text: str) -> None:
        self._write(f"\r\x1b[K{text}\n" if self._terminal else f"{text}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
        self._stream.flush()


def duration(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
