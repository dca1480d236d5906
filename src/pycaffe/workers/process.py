"""Starts and ends one worker process, and reads its memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from typing import Any

from pycaffe.workers.messages import Settings
from pycaffe.workers.worker import main

__all__ = ["WorkerProcess", "own_memory"]

# Read by the libraries when they are loaded, hence set before the process begins.
ONE_THREAD = dict.fromkeys(
    (
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "BLIS_NUM_THREADS",
        "NUMEXPR_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "OPENCV_FOR_THREADS_NUM",
    ),
    "1",
)
_environment_lock = threading.Lock()


class WorkerProcess:
    """A worker, seen from the pool: its process and the pool's end of its pipe."""

    def __init__(self, number: int, settings: Settings) -> None:
        self.number = number
        self.ready = False
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=True)
        self.process = context.Process(target=main, args=(theirs,), name=f"pycaffe-worker-{number}", daemon=True)
        try:
            with _one_thread_environment(), _interrupts_blocked():
                self.process.start()
            theirs.close()  # while this end were open here, the worker's death would not end the pipe
            self.send(pickle.dumps(settings, pickle.HIGHEST_PROTOCOL))
        except BaseException:
            self.connection.close()  # at which a worker that did start ends
            theirs.close()
            raise

    @property
    def waitables(self) -> tuple[Any, int]:
        """What to wait on: the pipe (an answer, or its end) and the process (its death)."""
        return self.connection, self.process.sentinel

    def send(self, payload: bytes) -> None:
        """Sends bytes. To a worker that is dead they go nowhere: its sentinel tells the pool."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(payload)

    def receive(self) -> tuple[list[Any], bool]:
        """The messages that are there already, and whether the pipe is at its end."""
        messages: list[Any] = []
        try:
            while self.connection.poll(0):
                messages.append(pickle.loads(self.connection.recv_bytes()))
        except (EOFError, OSError):  # OSError: the worker died in the middle of a message
            return messages, True
        return messages, False

    def join_dead(self) -> str:
        """Waits for a process whose pipe or sentinel has ended; what it died of, for messages."""
        self.process.join(1)
        self.end()
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-code).name
            return f"signal {-code}"
        return f"exit status {code}"

    def ask_to_end(self) -> None:
        """Closes the pipe, at which the worker ends itself."""
        self.connection.close()

    def end(self) -> None:
        """Makes sure that the process is gone. Leaves no zombie."""
        self.connection.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _one_thread_environment() -> Iterator[None]:
    """The environment in which a worker starts: each library takes one thread."""
    with _environment_lock:
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """SIGINT stays blocked in a child from its first instruction until it ignores it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # started within Process.start, it would unblock SIGINT again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def own_memory(pid: int) -> int | None:
    """Bytes that a process shares with no other (USS); None where the system does not tell."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            lines = [line.split() for line in file if line.startswith("Private_")]
    except OSError:
        return None
    return sum(int(kilobytes) for _, kilobytes, _ in lines) * 1024
