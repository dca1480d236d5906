"""Workers as fresh processes, which load the net themselves: for devices and systems where a fork is not safe.

Not `multiprocessing.Process`: that imports the parent's `__main__` again, so that a script without the usual guard
starts pools without end, and daemonic processes may not have any.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
from multiprocessing import spawn
from multiprocessing.connection import Connection
from typing import Any

from pycaffe.workers.lifeline import Lifeline, another_end, bind
from pycaffe.workers.messages import Settings, Unreadable, picklable_error
from pycaffe.workers.pipe_end import PipeEnd
from pycaffe.workers.transport import SharedMemory, Transport, memory_file

__all__ = ["SpawnSource", "SpawnedWorker", "one_thread_environment", "start_process"]

DEATH_SECONDS = 1.0  # a process whose pipe has ended is given so long to be gone

# Read by the libraries when they are loaded, hence set before the process begins.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OPENCV_FOR_THREADS_NUM",
)


def one_thread_environment(threads: int = 1) -> dict[str, str]:
    """This process's environment, with so many threads for each numerical library."""
    return {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}


class SpawnSource:
    """Starts workers as fresh processes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lifeline: Lifeline | None = None

    def start(self, number: int, device: str) -> SpawnedWorker:
        """A new worker; see `WorkerSource`."""
        if self._lifeline is None:
            self._lifeline = Lifeline()
        return SpawnedWorker(dataclasses.replace(self._settings, device=device), self._lifeline.end)

    def close(self) -> None:
        """Ends what is left."""
        if self._lifeline is not None:
            self._lifeline.close()


class SpawnedWorker:
    """A process and the pool's end of its pipe; see `WorkerHandle`."""

    def __init__(self, settings: Settings, lifeline: int | None) -> None:
        ours, theirs = socket.socketpair()
        self._pipe = PipeEnd(ours)
        self._transport = Transport()
        self._death: int | None = None
        self._ended = False
        memory = memory_file()
        try:
            self._process = start_process(theirs, memory, settings.threads, lifeline)
            if memory is not None:
                self._transport = Transport(SharedMemory(memory, 0))
        except BaseException:
            self._pipe.close()  # at which a worker that did start ends
            if memory is not None:
                os.close(memory)
            raise
        finally:
            theirs.close()  # while this end were open here, the worker's death would not end the pipe
        # A worker's own children may keep its end of the pipe open beyond its death.
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._death = os.pidfd_open(self._process.pid)
        elif sys.platform == "win32":
            self._death = int(self._process._handle)
        self.send(settings)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def waitables(self) -> tuple[Any, ...]:
        return (self._pipe,) if self._death is None else (self._pipe, self._death)

    def send(self, message: object) -> None:
        self._pipe.send(self._transport.pack(message))

    def receive(self) -> tuple[list[Any], bool]:
        dead = self._process.poll() is not None  # asked first: what it sent before is in the pipe by then
        packed, ended = self._pipe.receive()
        return [self._unpacked(data) for data in packed], dead or ended

    def kill(self) -> None:
        self._process.kill()

    def cause_of_death(self) -> str:
        code = self._wait()
        if code >= 0:
            return f"exit status {code}"
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"signal {-code}"

    def ask_to_end(self) -> None:
        self._pipe.close()

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self.ask_to_end()
        self._wait()
        self._transport.close()
        if self._death is not None and sys.platform != "win32":
            os.close(self._death)

    def _unpacked(self, data: bytearray) -> Any:
        try:
            return self._transport.unpack(data)
        except (Exception, SystemExit) as error:  # what `postprocess` returned: it may do anything
            return Unreadable(picklable_error(error))

    def _wait(self) -> int:
        try:
            return self._process.wait(DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def start_process(
    theirs: socket.socket | Connection, memory: int | None, threads: int, lifeline: int | None
) -> subprocess.Popen[bytes]:
    """A Python of its own, with this one's module path, that runs `worker.main` at the other end of the pipe.

    It inherits a blocked SIGINT from the pool's thread, until it ignores it. It does not outlive the pool whose
    `lifeline` this is.
    """
    handle, end = theirs.fileno(), another_end(lifeline)
    inherited: dict[str, Any] = {"pass_fds": [each for each in (handle, memory, end) if each is not None]}
    if sys.platform == "win32":
        os.set_handle_inheritable(handle, True)
        inherited = {"startupinfo": subprocess.STARTUPINFO(lpAttributeList={"handle_list": [handle]})}
    code = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from multiprocessing.connection import Connection; "
        f"from pycaffe.workers.worker import main; main(Connection({handle}), {memory})"
    )
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    try:
        process = subprocess.Popen(
            [os.fsdecode(spawn.get_executable()), *flags, "-c", code],
            stdin=subprocess.DEVNULL,
            env=one_thread_environment(threads),
            **inherited,
        )
        bind(end, process.pid)
    finally:
        if end is not None:
            os.close(end)
    return process
