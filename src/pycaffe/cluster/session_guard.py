"""Cleans up behind a Ray that was started here, whatever way the process ends that it was started for.

    this process ── the only end to write of a pipe ──→ guard: a process that waits until that end is closed
                                                         then: ends the node's agents, removes the session's folder

Ray's main processes die with the one that started them. Not so the agents of the node, which try for a minute to tell
the rest of Ray, and the folder in which the session keeps its logs, sockets and spilled objects, which Ray never
removes. Of Linux; elsewhere Ray is left to itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

from pycaffe.workers.lifeline import Lifeline

__all__ = ["SessionGuard"]

END_SECONDS = 10.0

# Only the standard library, and no site-packages: it is there in a few hundredths of a second.
_GUARD = """
import contextlib, os, shutil, signal, sys, time

end, folder, *agents = sys.argv[1:]
os.read(int(end), 1)
for agent in agents:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(int(agent), signal.SIGKILL)
latest = os.path.join(os.path.dirname(folder), "session_latest")
with contextlib.suppress(OSError):
    if os.path.basename(os.readlink(latest)) == os.path.basename(folder):
        os.unlink(latest)
for _ in range(100):  # as long as processes of Ray that are about to end write into it
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.exists(folder):
        break
    time.sleep(0.05)
"""


class SessionGuard:
    """Guards the session that `ray.init` has just started in this process.

    Args:
        ray: the module.
    """

    def __init__(self, ray: Any) -> None:
        self._lifeline = Lifeline()
        self._process: subprocess.Popen[bytes] | None = None
        node = getattr(ray._private.worker, "_global_node", None)  # nothing public tells folder and processes
        if self._lifeline.end is None or node is None:
            return
        agents = _open_children(node.all_processes["raylet"][0].process.pid)
        end = self._lifeline.end
        words = [str(end), node.get_session_dir_path(), *map(str, agents)]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _GUARD, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(end, *agents),
            cwd="/",
            start_new_session=True,  # Ctrl-C is not for it
        )
        for agent in agents:
            os.close(agent)

    def close(self) -> None:
        """After `ray.shutdown`: returns when everything is cleaned up. Repeatable."""
        self._lifeline.close()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)
            self._process = None


def _open_children(pid: int) -> list[int]:
    """Descriptors of a process's children: they stay those of these processes when the numbers are given to others."""
    import psutil  # Ray brings it

    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(OSError):  # it has just ended, or a sandbox without these
                found.append(os.pidfd_open(child.pid))
    return found
