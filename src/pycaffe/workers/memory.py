"""How much memory a process has, and how a process that is about to fork lets go of what it need not hold.

A page that processes share counts for each of them in part (PSS) and as nobody's own (USS). A mapping with one owner is
that owner's alone: measure with two workers at least.
"""

from __future__ import annotations

import ctypes
import gc
import re
from typing import NamedTuple

__all__ = ["Memory", "memory_of", "release_before_fork"]

MADV_DONTNEED = 4
_MAPPING = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ...p \S+ \S+ \d+ +/")  # private, of a file


class Memory(NamedTuple):
    """Bytes of a process. own: that no other process shares (USS). share: own, and its part of the rest (PSS)."""

    own: int
    share: int


def memory_of(pid: int) -> Memory | None:
    """A process's memory; None where the process is gone or the system does not tell."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            fields = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return None
    kilobytes = {name: int(value) for name, value, *_ in fields}
    private = sum(value for name, value in kilobytes.items() if name in (b"Private_Clean:", b"Private_Dirty:"))
    return Memory(private * 1024, kilobytes[b"Pss:"] * 1024)


def release_before_fork() -> None:
    """Gives back what this process does not use, and settles what it does, so that children share as much as they can.

    Pages of files (libraries that were read once, weights that a session has packed into a copy of its own) leave this
    process; whatever is needed again comes back from the page cache, at a touch. Objects that exist are kept out of
    the garbage collector's rounds, which would write to their pages.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):  # glibc
        libc.malloc_trim(0)
    for begin, end in _clean_file_mappings():
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), MADV_DONTNEED)
    gc.freeze()


def _clean_file_mappings() -> list[tuple[int, int]]:
    """Private mappings of files that this process has written nothing to: their pages are the file's."""
    found: list[tuple[int, int]] = []
    with open("/proc/self/smaps", "rb") as file:
        candidate = None
        for line in file:
            if b"-" in line.split(b" ", 1)[0]:
                match = _MAPPING.match(line)
                candidate = (int(match[1], 16), int(match[2], 16)) if match else None
            elif candidate is not None and line.startswith(b"Anonymous:") and int(line.split()[1]) == 0:
                found.append(candidate)
    return found
