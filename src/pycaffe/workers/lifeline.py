"""The kernel ends a pool's processes when the pool's process ends, whatever they are doing.

    pool ── the only end to write of a pipe ──┬─→ zygote, spawned workers: the end to read, bound before they begin
                                              └─→ forked workers: one of their own, bound after the fork

Nobody ever writes. When the pool's process ends, killed or not, its end closes, and the kernel kills whoever a file of
the other end is bound to: no code of theirs has to run, so that it reaches one that hangs with the interpreter's lock,
that is still loading the net, or that is stopped. Of Linux; elsewhere a worker sees the end of its own pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import weakref

__all__ = ["Lifeline", "another_end", "bind"]


class Lifeline:
    """The pool's side.

    Attributes:
        end: the descriptor to read, for `another_end`; None where the system has nothing of the kind.

    Raises:
        OSError: the system gives no more descriptors.
    """

    def __init__(self) -> None:
        self.end: int | None = None
        if sys.platform == "linux":
            self.end, self._write = os.pipe()
            _lifelines.add(self)

    def close(self) -> None:
        """Kills whoever is bound to it. Repeatable."""
        _lifelines.discard(self)
        if self.end is not None:
            os.close(self._write)
            os.close(self.end)
            self.end = None


def another_end(end: int | None) -> int | None:
    """The same end as a file of its own, since a file is bound to one process; None where that cannot be."""
    if end is None:
        return None
    try:
        return os.open(f"/proc/self/fd/{end}", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # no /proc, in a sandbox
        return None


def bind(end: int | None, pid: int) -> None:
    """From now on, and as long as that process holds this end, it does not outlive the pool."""
    if end is None:
        return
    import fcntl  # not on Windows

    with contextlib.suppress(OSError):  # a sandbox without these
        fcntl.fcntl(end, fcntl.F_SETOWN, pid)
        fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)


_lifelines: weakref.WeakSet[Lifeline] = weakref.WeakSet()


def _close_in_child() -> None:
    """A process that the user forks must not keep the pool's processes alive."""
    for lifeline in list(_lifelines):
        lifeline.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
