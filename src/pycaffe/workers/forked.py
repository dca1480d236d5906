"""Workers that are forked from a zygote, and the zygote, as a pool sees them.

    Zygote.start(number) ─→ ForkedWorker: a pair of sockets and memory; the request waits until the net is loaded
    ForkedWorker.receive ─→ Zygote.look: Loaded, Forked, Died ... for all workers, then this worker's own messages

A zygote that dies is started again at once. Its workers live on; only what they died of cannot be told any more. The
requests that it had not answered go to the next one, with fresh pipes: it may have forked before it died.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import spawn
from multiprocessing.connection import wait
from typing import Any

from pycaffe.workers.lifeline import Lifeline, another_end, bind
from pycaffe.workers.messages import Failed, Ready, Settings, Unreadable, picklable_error
from pycaffe.workers.pipe_end import PipeEnd
from pycaffe.workers.spawn import one_thread_environment
from pycaffe.workers.transport import SharedMemory, Transport, memory_file
from pycaffe.workers.zygote import CannotFork, CannotLoad, Died, Fork, Forked, Loaded

__all__ = ["ForkedWorker", "Zygote", "died_of"]

LOADS = 3  # zygotes that die one after another before they have loaded the net, until workers are said to have died
SECONDS = 1.0  # how long a process that should end is waited for before it is killed


class Zygote:
    """Starts forked workers: a `WorkerSource`.

    Raises:
        OSError: the system gives no more processes or descriptors.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._file = os.memfd_create("pycaffe-settings")
        with os.fdopen(os.dup(self._file), "wb") as file:
            file.writelines(Transport().pack(settings))
        self._waiting: dict[int, ForkedWorker] = {}  # asked for and not there yet, by a number of the request
        self._workers: weakref.WeakValueDictionary[int, ForkedWorker] = weakref.WeakValueDictionary()  # by pid
        self._requests = 0
        self._failures = 0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._lifeline = Lifeline()
            try:
                self._launch()
            except BaseException:
                self._lifeline.close()
                raise
        except BaseException:
            os.close(self._file)
            raise
        _zygotes.add(self)

    @property
    def pid(self) -> int | None:
        """The process at present."""
        return self._process.pid if self._process is not None else None

    @property
    def control(self) -> socket.socket:
        """Becomes ready with reports, and with the zygote's death."""
        return self._control

    def start(self, number: int, device: str = "cpu") -> ForkedWorker:
        """A new worker, which is forked as soon as the net is loaded."""
        if self._process is None:
            self._launch()
        worker = ForkedWorker(self)
        self._request(worker)
        return worker

    def _launch(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._loaded = False
        try:
            self._control.setblocking(False)
            with contextlib.ExitStack() as stack:
                copy = os.open(f"/proc/self/fd/{self._file}", os.O_RDONLY)  # with a position of its own
                stack.callback(os.close, copy)
                end = another_end(self._lifeline.end)
                if end is not None:
                    stack.callback(os.close, end)
                code = f"import sys; sys.path[:] = {sys.path!r}; sys.argv[:] = {sys.argv!r}\n"
                code += f"from pycaffe.workers.zygote import main; main({theirs.fileno()}, {copy}, {end})"
                flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
                with _interrupts_blocked():
                    self._process = subprocess.Popen(
                        [os.fsdecode(spawn.get_executable()), *flags, "-c", code],
                        env=one_thread_environment(),
                        stdin=subprocess.DEVNULL,
                        pass_fds=[each for each in (theirs.fileno(), copy, end) if each is not None],
                    )
                bind(end, self._process.pid)
        except BaseException:
            self._control.close()
            raise
        finally:
            theirs.close()

    def _request(self, worker: ForkedWorker) -> None:
        self._requests += 1
        self._waiting[self._requests] = worker
        if self._loaded:
            self._send_request(self._requests, worker)

    def _send_request(self, number: int, worker: ForkedWorker) -> None:
        # EPIPE: the next look tells. EAGAIN: thousands of requests that nobody read; there is one a worker at most.
        with contextlib.suppress(OSError):
            socket.send_fds(self._control, [pickle.dumps(Fork(number))], worker.their_descriptors)

    # -- reports

    def look(self) -> None:
        """Takes in what the zygote has reported, or its death. Never waits."""
        while self._process is not None:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, 1 << 16, 1)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._take_death()
            else:
                self._take(pickle.loads(data), descriptors)

    def _take(self, report: object, descriptors: list[int]) -> None:
        if isinstance(report, Loaded):
            self._loaded, self._failures = True, 0
            for number, worker in self._waiting.items():
                self._send_request(number, worker)
        elif isinstance(report, Forked):
            started = self._waiting.pop(report.number, None)
            if started is None:  # let go meanwhile: its pipe has ended, at which it ends
                for descriptor in descriptors:
                    os.close(descriptor)
                return
            self._workers[report.pid] = started
            started.has_started(report.pid, descriptors[0] if descriptors else None)
            if report.fresh:
                started.send(self._settings)
        elif isinstance(report, Died):
            if report.pid in self._workers:
                self._workers.pop(report.pid).has_died(died_of(os.waitstatus_to_exitcode(report.status)))
        elif isinstance(report, CannotFork):
            if report.number in self._waiting:
                self._waiting.pop(report.number).has_died(f"{report.reason} (it was not forked)")
        elif isinstance(report, CannotLoad):
            self._fail(str(report.error), Failed(report.error))

    def _take_death(self) -> None:
        """The zygote has died; the next one is started, unless that leads to nothing."""
        cause = died_of(self._reap())
        for number, worker in list(self._waiting.items()):
            if worker.pid is not None:  # it has spoken for itself; only the zygote's word is missing
                self._workers[worker.pid] = self._waiting.pop(number)
        for worker in list(self._workers.values()):
            worker.is_orphaned()
        if not self._loaded:
            self._failures += 1
            if self._failures >= LOADS or not self._waiting:
                self._fail(cause, None)
                return
        try:
            for worker in self._waiting.values():
                worker.renew()
            self._launch()
        except OSError as error:
            self._fail(f"{cause}, and no other could be started: {error}", None)

    def _fail(self, cause: str, message: object) -> None:
        self._failures = 0
        for worker in self._waiting.values():
            worker.has_died(cause, message)
        self._waiting.clear()

    def _reap(self) -> int | None:
        """Makes sure that the process is gone; its exit code."""
        process, self._process = self._process, None
        self._control.close()
        if process is None:
            return None
        try:
            return process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def forget(self, worker: ForkedWorker) -> None:
        """A worker that is not wanted any more."""
        for number, waiting in list(self._waiting.items()):
            if waiting is worker:
                del self._waiting[number]

    def close(self) -> None:
        """Ends the zygote, and the workers that are still there. Repeatable."""
        _zygotes.discard(self)
        if not self._loaded:  # it does not look at its socket yet
            self._lifeline.close()
        self._reap()
        self._lifeline.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def close_in_child(self) -> None:
        """A process that the user forks lets go of what is the pool's."""
        if self._process is not None:
            self._process.returncode = 0  # not this process's child
            self._process = None
        self._control.close()


class ForkedWorker:
    """A worker that a zygote forks: a `WorkerHandle`."""

    def __init__(self, zygote: Zygote) -> None:
        self._zygote = zygote
        self.pid: int | None = None
        self._handle: int | None = None  # pidfd
        self._cause: str | None = None
        self._orphaned = False
        self._last_message: object = None
        self._theirs: list[int] = []
        self._connect()

    def _connect(self) -> None:
        ours, theirs = socket.socketpair()
        memory = memory_file()
        self._theirs = [theirs.detach()]
        shared = None
        if memory is not None:
            self._theirs.append(memory)
            try:
                shared = SharedMemory(os.dup(memory), 0)
            except OSError:  # all goes through the pipe, then
                os.close(self._theirs.pop())
        self._pipe, self._transport = PipeEnd(ours), Transport(shared)

    def renew(self) -> None:
        """Another pipe, for another zygote."""
        self._disconnect()
        self._connect()

    def _disconnect(self) -> None:
        self._pipe.close()
        self._transport.close()
        self._let_go_of_theirs()

    def _let_go_of_theirs(self) -> None:
        for descriptor in self._theirs:
            os.close(descriptor)
        self._theirs = []

    @property
    def their_descriptors(self) -> list[int]:
        """What the worker inherits: its end of the pipe, and perhaps memory."""
        return self._theirs

    # -- reports of the zygote

    def has_started(self, pid: int, handle: int | None) -> None:
        """It is there. While its end of the pipe were open here, its death would not end the pipe."""
        self.pid, self._handle = pid, handle
        self._let_go_of_theirs()

    def has_died(self, cause: str, message: object = None) -> None:
        """It is dead, perhaps before it was there; `message` is its last one."""
        self._cause, self._last_message = cause, message
        self._let_go_of_theirs()

    def is_orphaned(self) -> None:
        """Its zygote is dead: nobody reports its death."""
        self._orphaned = True
        self._let_go_of_theirs()
        if self._handle is None and self.pid is not None and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._handle = os.pidfd_open(self.pid)

    # -- as a pool sees it

    @property
    def waitables(self) -> Sequence[Any]:
        """Its pipe, its process, and the zygote's reports."""
        ends: list[Any] = [] if self._pipe.fileno() < 0 else [self._pipe]
        if self._handle is not None:
            ends.append(self._handle)
        if self._zygote.control.fileno() >= 0:
            ends.append(self._zygote.control)
        return ends

    def send(self, message: object) -> None:
        """See `WorkerHandle`."""
        self._pipe.send(self._transport.pack(message))

    def receive(self) -> tuple[list[Any], bool]:
        """See `WorkerHandle`."""
        self._zygote.look()
        dead = self._is_dead()  # before the pipe is read: what it answered before it died is good
        packed, ended = self._pipe.receive()
        messages = [self._unpacked(data) for data in packed]
        if self.pid is None:  # it may be faster than the zygote's report
            self.pid = next((message.pid for message in messages if isinstance(message, Ready)), None)
        if self._last_message is not None:
            messages, self._last_message = [*messages, self._last_message], None
        return messages, dead or ended

    def _unpacked(self, data: bytearray) -> Any:
        try:
            return self._transport.unpack(data)
        except (Exception, SystemExit) as error:  # a user's object: it may do anything while it is unpickled
            return Unreadable(picklable_error(error))

    def _is_dead(self) -> bool:
        if self._cause is not None:
            return True
        return self._has_ended(0)

    def kill(self) -> None:
        """See `WorkerHandle`."""
        if self._cause is not None or self.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if self._handle is not None:
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            else:  # it is not reaped before the zygote has reported it, so that the pid is its own
                os.kill(self.pid, signal.SIGKILL)

    def cause_of_death(self) -> str:
        """See `WorkerHandle`."""
        deadline = time.monotonic() + SECONDS
        while self._cause is None and not self._orphaned and self.pid is not None and self._zygote.pid is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            wait([self._zygote.control], left)
            self._zygote.look()
        self.kill()
        if self._cause is None:
            self._cause = self._cause_of_orphan()
        return self._cause

    def _cause_of_orphan(self) -> str:
        """Orphans go to process 1. If that is this very process, in a container, they are its own."""
        if self.pid is not None:
            with contextlib.suppress(ChildProcessError):
                return died_of(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))
        return "an unknown cause (the process that forked it is dead, too)"

    def ask_to_end(self) -> None:
        """See `WorkerHandle`."""
        self._zygote.forget(self)
        self._pipe.close()

    def end(self) -> None:
        """See `WorkerHandle`."""
        self.ask_to_end()
        if self._cause is None:
            self._wait_for_end()
        self._disconnect()
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _wait_for_end(self) -> None:
        """The zygote reaps it, or process 1, which may be this one."""
        if self._handle is None or self._orphaned:
            self.cause_of_death()
        elif not self._has_ended(SECONDS):
            self.kill()
            self._has_ended(SECONDS)

    def _has_ended(self, seconds: float) -> bool:
        return self._handle is not None and bool(wait([self._handle], seconds))


def died_of(code: int | None) -> str:
    """What an exit code (negative: a signal) means, in words."""
    if code is None:
        return "an unknown cause"
    if code >= 0:
        return f"exit status {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """SIGINT stays blocked in a child from its first instruction until it ignores it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_zygotes: weakref.WeakSet[Zygote] = weakref.WeakSet()


def _close_in_child() -> None:
    for zygote in list(_zygotes):
        zygote.close_in_child()
    _zygotes.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
