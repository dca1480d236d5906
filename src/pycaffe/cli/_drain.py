"""SIGINT and SIGTERM: the first asks a job to finish what is at work, a second one stops it where it is."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Drain(contextlib.AbstractContextManager["Drain"]):
    """Whether a job should come to its end. While it is entered, the signals are its own.

    The first signal raises nothing anywhere, so that no record is cut in two and no result is lost. The second raises
    KeyboardInterrupt: a job whose reader hangs, or whose images do, can be stopped all the same.

    Attributes:
        asked: the job should read no further images.
        signal: the signal that came; None for none.
    """

    def __init__(self) -> None:
        self.asked = False
        self.signal: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    @property
    def status(self) -> int | None:
        """What the shell says of a process that died of the signal: 130 or 143; None without a signal."""
        return None if self.signal is None else 128 + self.signal

    def ask(self) -> None:
        """Asks the job to come to its end, without a signal."""
        self.asked = True

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self.asked = True
        # Not through sys.stderr: this may have come in the middle of a write to it.
        with contextlib.suppress(OSError):
            os.write(2, b"\nStopping after the images that are at work. Once more stops at once.\n")

    def __enter__(self) -> Drain:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._received) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
