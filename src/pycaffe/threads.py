"""How many threads one forward may use: the process-wide default that nets without a number of their own follow."""

from __future__ import annotations

import functools
import os
import sys

from pycaffe.errors import InputError

__all__ = ["available_cores", "checked_threads", "default_threads", "set_num_threads"]

_threads: int | None = None


def set_num_threads(threads: int | None) -> None:
    """Sets the threads of one forward of nets without a number of their own, from their next forward on.

    None, the default, takes one for each core that this process may use. Counts for torch as well, which has one
    number for the whole process.

    Raises:
        InputError: less than 1.
    """
    global _threads
    _threads = checked_threads(threads)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(default_threads())


def default_threads() -> int:
    """The threads of one forward of a net without a number of its own."""
    return _threads if _threads is not None else available_cores()


@functools.cache
def available_cores() -> int:
    """The cores that this process might use at its first forward: fewer than the machine has under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def checked_threads(threads: int | None) -> int | None:
    """The number itself.

    Raises:
        InputError: less than 1.
    """
    if threads is not None and threads < 1:
        raise InputError(f"The number of threads must be at least 1. Got {threads!r}.")
    return threads
