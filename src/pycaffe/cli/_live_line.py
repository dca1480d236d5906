"""On a terminal: one line under the log that is redrawn as training goes on."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

from pycaffe.cli._progress import duration

__all__ = ["LiveLine", "terminal"]

REDRAW_SECONDS = 0.1
RATE_SECONDS = 30.0  # the rate is that of so many seconds: it follows a change, and does not jump


def terminal() -> TextIO | None:
    """The stream to draw on: stderr, where the log goes, or stdout where the log goes to a file; None without one."""
    for stream in (sys.stderr, sys.stdout):
        if stream.isatty():
            return stream
    return None


class LiveLine(logging.Handler):
    """Draws iteration, rate, loss and time left. As a handler before that of the log it makes room for its lines.

    Args:
        stream: the terminal.
        last: the iteration that training ends with.
        clock: seconds; for tests.
    """

    def __init__(self, stream: TextIO, last: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.DEBUG)
        self._stream, self._last, self._clock = stream, last, clock
        self._drawn: float | None = None
        self._times: deque[tuple[float, int]] = deque()

    def advance(self, iteration: int, loss: float | None) -> None:
        """An iteration begins; `loss` is that of the one before."""
        now = self._clock()
        if self._drawn is not None:  # the first iteration warms up, and says nothing about the rate
            if now - self._drawn < REDRAW_SECONDS:
                return
            self._times.append((now, iteration))
        self._drawn = now
        while len(self._times) > 2 and now - self._times[0][0] > RATE_SECONDS:
            self._times.popleft()
        self._write(self._text(iteration, loss))

    def _text(self, iteration: int, loss: float | None) -> str:
        parts = [f"Iteration {iteration}/{self._last}", f"{100 * iteration // max(self._last, 1)} %"]
        if len(self._times) > 1:
            (then, first), (now, _) = self._times[0], self._times[-1]
            rate = (iteration - first) / (now - then)
            parts += [f"{rate:.3g} iter/s", f"{duration((self._last - iteration) / rate)} left"]
        if loss is not None:
            parts.append(f"loss {loss:.4g}")
        return "  ".join(parts)

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log comes: clears this one; the next iteration draws it again, below."""
        self._write("")

    def close(self) -> None:
        """Clears the line."""
        self._write("")
        super().close()

    def _write(self, text: str) -> None:
        columns = shutil.get_terminal_size().columns
        self._stream.write(f"\r\x1b[K{text[: columns - 1]}")  # a line that wraps could not be cleared
        self._stream.flush()
