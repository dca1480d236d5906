"""The processes of a run: those of its workers and servers, and all of the session that it was begun in."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterable

ACTORS = ("ray::WorkerActor", "ray::ServerActor")


def processes_in(session: int) -> list[int]:
    """The processes of a session, but for those that are dead and not fetched."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = status.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(status.parent.name))
    return found


def actors_among(pids: Iterable[int]) -> list[int]:
    """Those that are workers or servers of a run: Ray gives a process the title of what it does."""
    found = []
    for pid in pids:
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{pid}/cmdline").read_text().startswith(ACTORS):
                found.append(pid)
    return found


def left_after(seconds: float, find: Callable[[], list[int]]) -> list[int]:
    """What is found, as soon as that is nothing, or after a while."""
    until = time.monotonic() + seconds
    while (left := find()) and time.monotonic() < until:
        time.sleep(0.1)
    return left
