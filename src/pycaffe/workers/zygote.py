"""The zygote: a process that loads the net once and forks a pool's workers.

    pool ──exec──→ zygote: Settings → Runner, sessions made, pages let go
         ←─ Loaded, or CannotLoad and the end
         ── Fork(number) + the worker's end of its pipe + memory ──→ fork in some 10 ms
         ←─ Forked(number, pid) + a descriptor of the process       └→ worker: `worker.serve`
         ←─ Died(pid, status), whenever a worker has

It is a Python of its own, not a fork of the pool's process: whatever threads that one has, here is only one, so that a
fork copies no lock that somebody holds. The libraries are told so by their environment, before they are loaded. Where
something has started a thread nevertheless (a Python layer, a module of `preprocess`), workers are fresh processes.

Nothing outlives the pool. When that closes its end of the socket, the zygote kills the workers and goes. When the
pool's process ends, however it does, the kernel kills them all; see lifeline.py.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import random
import select
import signal
import socket
import sys
import traceback
from collections import deque
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from pycaffe.workers.extents import all_pieces
from pycaffe.workers.lifeline import another_end, bind
from pycaffe.workers.spawn import start_process
from pycaffe.workers.transport import SharedMemory, Transport
from pycaffe.workers.worker import ignore_interrupts, serve

if TYPE_CHECKING:
    from pycaffe.workers.runner import Runner

__all__ = ["CannotFork", "CannotLoad", "Died", "Fork", "Forked", "Loaded", "main"]

MOST_COPIES = 512 << 20  # bytes of weights that the sessions for all extents together may copy
LARGEST_REPORT = 1 << 15  # bytes; a socket's buffer takes it whole


class Fork(NamedTuple):
    """Fork a worker; its end of the pipe, and perhaps its memory, come with this."""

    number: int


class Loaded(NamedTuple):
    """The net is loaded; Forks are welcome."""


class CannotLoad(NamedTuple):
    """The net cannot be loaded, or not here; the zygote ends."""

    error: BaseException


class Forked(NamedTuple):
    """A worker is there. A descriptor of its process (pidfd) comes with this where the system has any.

    fresh: whether it is a fresh process, which has to be sent the Settings first.
    """

    number: int
    pid: int
    fresh: bool


class CannotFork(NamedTuple):
    """The system gave no process."""

    number: int
    reason: str


class Died(NamedTuple):
    """A worker's end, as `os.waitpid` tells it."""

    pid: int
    status: int


def main(control: int, settings: int, lifeline: int | None) -> NoReturn:
    """The life of the zygote.

    Args:
        control: descriptor of its end of the socket.
        settings: descriptor of a file with the packed Settings.
        lifeline: descriptor of the end that it holds; see lifeline.py.
    """
    status = 1
    try:
        ignore_interrupts()
        pool = socket.socket(fileno=control)
        loaded = _load(pool, settings)
        if loaded is not None:
            _Zygote(pool, lifeline, *loaded).run()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _load(pool: socket.socket, file: int) -> tuple[Runner, bool] | None:
    """The runner that workers share, and whether they tell steps; None if the pool has been told why there is none."""
    from pycaffe.workers.memory import release_before_fork
    from pycaffe.workers.messages import picklable_error

    try:
        from pycaffe.workers.runner import Runner

        with open(file, "rb") as packed:
            settings = Transport().unpack(packed.read())
        runner = Runner(settings)
        _prepare(runner)
    except (Exception, SystemExit) as error:  # unpickling a function may import a user's module, which may do anything
        report = pickle.dumps(CannotLoad(picklable_error(error)))
        if len(report) > LARGEST_REPORT:
            report = pickle.dumps(CannotLoad(picklable_error(RuntimeError(str(error)[:1000]))))
        with contextlib.suppress(OSError):
            pool.send(report)
        return None
    release_before_fork()
    with contextlib.suppress(OSError):
        pool.send(pickle.dumps(Loaded()))
    return runner, settings.tell_steps


def _prepare(runner: Runner) -> None:
    """Makes what every worker would make for itself: sessions for the extents that it will run, and imports.

    Nearly all nets have one session for all extents. Of others, each has its own copy of the weights.
    """
    weights = sum(math.prod(blob.shape) * 4 for blobs in runner.net.params.values() for blob in blobs)
    extents = all_pieces(runner.batch_limit)
    if len(extents) * weights > MOST_COPIES:
        extents = list(dict.fromkeys((runner.batch_limit, 1)))
    for extent in extents:
        with contextlib.suppress(Exception):  # what it is (a net that takes no batches?) shows when workers run items
            runner.net.prepare_to_fork(extent, runner.outputs)
    if not any(layer.type == "Python" for layer in runner.net.layers):  # users' code may rely on real inputs
        with contextlib.suppress(Exception):
            runner.net.forward()
    with contextlib.suppress(ImportError):
        from pycaffe.images.decode import load_cv2

        load_cv2("reading images")


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


class _Zygote:
    """Waits for requests and for deaths. It never waits for the pool: what its socket does not take stays here."""

    def __init__(self, pool: socket.socket, lifeline: int | None, runner: Runner, tell_steps: bool) -> None:
        self._pool = pool
        self._lifeline = lifeline
        self._runner, self._tell_steps = runner, tell_steps
        self._workers: set[int] = set()
        self._reports: deque[tuple[bytes, list[int]]] = deque()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pool.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # its handler's only use is that a byte comes into the pipe
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def run(self) -> None:
        """Until the pool is gone."""
        events = select.poll()
        events.register(self._woken, select.POLLIN)
        while True:
            events.register(self._pool, select.POLLIN | (select.POLLOUT if self._reports else 0))
            ready = dict(events.poll())
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
                self._reap()
            if ready.get(self._pool.fileno(), 0) & ~select.POLLOUT and not self._take_request():
                self._end()
                return
            self._send_reports()

    def _take_request(self) -> bool:
        """Carries out a request; False at the end of the pool."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self._pool, 4096, 2)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        request: Fork = pickle.loads(data)
        try:
            self._start(request.number, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _start(self, number: int, descriptors: list[int]) -> None:
        fresh = _threads() > 1
        try:
            pid = self._start_fresh(descriptors) if fresh else os.fork()
        except OSError as error:
            self._report(CannotFork(number, str(error)))
            return
        if pid == 0:
            self._work(descriptors)
        self._workers.add(pid)
        handles: list[int] = []
        with contextlib.suppress(OSError, AttributeError):  # an old kernel, a sandbox
            handles.append(os.pidfd_open(pid))
        self._report(Forked(number, pid, fresh), handles)

    def _start_fresh(self, descriptors: list[int]) -> int:
        with socket.socket(fileno=os.dup(descriptors[0])) as end:
            process = start_process(end, descriptors[1] if len(descriptors) > 1 else None, 1, self._lifeline)
        process.returncode = 0  # `_reap` waits for it
        return process.pid

    def _work(self, descriptors: list[int]) -> NoReturn:
        """The life of a worker."""
        status = 1
        try:
            bind(another_end(self._lifeline), os.getpid())
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (self._woken, self._wake, self._pool.detach()):
                os.close(descriptor)
            for _, handles in self._reports:
                for handle in handles:
                    os.close(handle)
            _seed_anew()
            memory = SharedMemory(descriptors[1], 1) if len(descriptors) > 1 else None
            serve(Connection(descriptors[0]), self._runner, Transport(memory), self._tell_steps)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def _reap(self) -> None:
        for pid in list(self._workers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._workers.discard(pid)
                self._report(Died(pid, status))

    def _report(self, message: object, descriptors: list[int] | None = None) -> None:
        self._reports.append((pickle.dumps(message), descriptors or []))

    def _send_reports(self) -> None:
        while self._reports:
            data, descriptors = self._reports[0]
            try:
                socket.send_fds(self._pool, [data], descriptors)
            except BlockingIOError:
                return
            except OSError:  # the pool is gone: the next look at the socket ends it all
                pass
            self._reports.popleft()
            for descriptor in descriptors:
                os.close(descriptor)

    def _end(self) -> None:
        for pid in self._workers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._workers:
            os.waitpid(pid, 0)


def _seed_anew() -> None:
    """Children would all draw the same random numbers."""
    random.seed()
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()
