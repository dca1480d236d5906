"""JSON Lines: one record a line, each written whole."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import click


class Records:
    """A file that records are appended to, without a buffer: what is written survives any end of this process.

    Args:
        name: a path, or "-" for standard output.

    Raises:
        click.UsageError: the file cannot be written, or holds something already.
    """

    def __init__(self, name: str) -> None:
        self._own = name != "-"
        if not self._own:
            sys.stdout.flush()
            self._descriptor = sys.stdout.fileno()
            return
        try:
            self._descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise click.UsageError(f"Could not write {name!r}: {error.strerror}.") from error
        if os.fstat(self._descriptor).st_size:
            self.close()
            raise click.UsageError(f"{name!r} holds records already. Remove it, or give another --out.")

    def write(self, record: dict[str, Any]) -> None:
        """Appends one record. Within `interrupts_postponed`, Ctrl-C does not cut it in two."""
        # ASCII, so that a path that is no valid UTF-8 survives as an escape.
        line = memoryview(json.dumps(record, allow_nan=False).encode("ascii") + b"\n")
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            if self._own and written:  # the disk is full: a file of whole records is worth more than half a record
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            raise

    def close(self) -> None:
        """Closes the file."""
        if self._own:
            os.close(self._descriptor)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@contextlib.contextmanager
def interrupts_postponed() -> Iterator[None]:
    """A SIGINT within is raised at the end; a second one at once, so that a reader who hangs cannot hold us."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received = False

    def postpone(number: int, frame: object) -> None:
        nonlocal received
        if received:
            raise KeyboardInterrupt
        received = True

    before = signal.signal(signal.SIGINT, postpone)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt
