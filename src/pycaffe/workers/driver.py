"""Carries out what the state of a pool wants, and tells it what happens.

    users' threads ──post(event)──→ inbox ─┐                     ┌─ commands ─→ start, send, kill
                                           ├─→ step: PoolState ──┤
    workers' pipes ──wait──→ messages ─────┘                     └─ Deliver ──→ the item's owner

One thread, the driving thread, runs `step` for ever and touches state and workers alone, so that nothing here needs a
lock but the inbox. It sleeps in one wait for all pipes, deaths, timers, and the bell that `post` rings.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import wait
from typing import Any, Protocol

from pycaffe.errors import PoolError
from pycaffe.workers.commands import Broken, Deliver, KillWorker, RetireWorker, SendBatch, StartWorker
from pycaffe.workers.messages import BatchDone, Failed, Ready, RunBatch, Step, Unreadable
from pycaffe.workers.result import Result
from pycaffe.workers.state_machine import PoolState
from pycaffe.workers.worker_handle import WorkerHandle, WorkerSource

__all__ = ["Driver", "Owner"]

Event = Callable[[PoolState, float], None]
CLOSED = "The pool is closed."


class Owner(Protocol):
    """Who waits for items. Called in the driving thread."""

    def deliver(self, results: list[Result]) -> bool:
        """Takes results; whether no more are waited for."""

    def fail(self, error: BaseException) -> None:
        """No more results will come."""


class Driver:
    """The shell around a PoolState.

    Args:
        state: of a pool that has not started.
    """

    def __init__(self, state: PoolState) -> None:
        self.state = state
        self._source: WorkerSource
        self._handles: dict[int, WorkerHandle] = {}
        self._owners: set[Owner] = set()
        self._inbox: deque[Event] = deque()
        self._lock = threading.Lock()
        self._asleep = False
        self._said = False  # a worker without waitables has, and was not asked since
        self._hear, self._bell = Pipe(duplex=False)
        self._end: BaseException | None = None
        self._thread: threading.Thread | None = None

    # -- from any thread

    def start(self, source: WorkerSource, *, thread: bool) -> None:
        """Starts the workers; with a driving thread, or for a caller who calls `step`."""
        self._source = source
        self._inbox.append(lambda state, now: state.start())
        if thread:
            self._thread = threading.Thread(target=self._drive, name="pycaffe-pool", daemon=True)
            self._thread.start()

    def post(self, event: Event, owner: Owner | None = None) -> None:
        """Hands an event to the driving thread, and an owner who will wait for results.

        Raises:
            PoolError: the pool is closed.
        """
        with self._lock:
            if self._end is not None:
                raise self._end
            if owner is not None:
                self._owners.add(owner)
            self._inbox.append(event)
        self.ring()

    def check_open(self) -> None:
        """Raises what ended the pool, if it has ended."""
        if self._end is not None:
            raise self._end

    def leave(self, owner: Owner) -> None:
        """An owner waits for nothing any more."""

        def event(state: PoolState, now: float) -> None:
            if owner in self._owners:
                self._owners.discard(owner)
                state.abandon(owner)

        if self._end is None:  # else all is forgotten already
            self._inbox.append(event)
            self.ring()

    def ring(self) -> None:
        """Wakes the driving thread if it sleeps."""
        with self._lock:
            if self._asleep:
                self._asleep = False
                self._bell.send_bytes(b"")  # the only message on the way: it never waits

    def wake(self) -> None:
        """A worker without waitables has something to say: it is asked before the driving thread sleeps again.

        `ring` alone would be lost on a driving thread that has asked that worker already and does not sleep yet.
        """
        self._said = True
        self.ring()

    def close(self, error: BaseException | None = None) -> None:
        """Ends the workers, at once; who waits for results gets the error. Repeatable."""
        with self._lock:
            if self._end is None:
                self._end = error or PoolError(CLOSED)
        self.ring()
        if self._thread is None:
            self._end_all()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    @property
    def in_driving_thread(self) -> bool:
        """Whether the caller is called by the driving thread, which must not wait for itself."""
        return self._thread is threading.current_thread()

    # -- in the driving thread

    def _drive(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Workers inherit it: Ctrl-C must not reach them before they can ignore it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while self._end is None:
                self.step()
        except BaseException as error:
            # A bug, here or in the state. Whoever waits has to hear of it, else all wait for ever.
            self._end = PoolError(f"The pool has failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._end_all()

    def step(self) -> None:
        """Sleeps until something happens, and does what follows from it."""
        self._read_inbox()
        self._obey()
        ends = {number: handle.waitables for number, handle in self._handles.items()}
        ready = self._sleep({end for each in ends.values() for end in each})
        for number, handle in list(self._handles.items()):
            if not ends[number] or not ready.isdisjoint(ends[number]):
                self._receive(number, handle)
        now = time.monotonic()
        if now >= self.state.next_time():
            self.state.ticked(now)
        self._obey()
        if self._end is not None and self._thread is None:
            self._end_all()

    def _read_inbox(self) -> None:
        now = time.monotonic()
        while self._inbox:
            self._inbox.popleft()(self.state, now)

    def _sleep(self, ends: set[Any]) -> set[Any]:
        """Until one of these ends, the bell, or a time; the ends that are ready."""
        if self._thread is None:
            return set()
        with self._lock:
            if self._inbox or self._said or self._end is not None:
                self._said = False
                return set()
            self._asleep = True
        seconds = self.state.next_time() - time.monotonic()
        timeout = None if seconds == float("inf") else max(0.0, seconds)
        ready = set(wait([self._hear, *ends], timeout))
        with self._lock:
            self._asleep = self._said = False
        if self._hear in ready:
            self._hear.recv_bytes()
        return ready

    def _receive(self, number: int, handle: WorkerHandle) -> None:
        messages, dead = handle.receive()
        now = time.monotonic()
        for message in messages:
            if isinstance(message, BatchDone):
                self.state.answered(number, message.items(), message.timing, now)
            elif isinstance(message, Step):
                self.state.stepped(number, message.numbers, now)
            elif isinstance(message, Unreadable):
                self.state.refused(number, message.error, now)
            elif isinstance(message, Ready):
                self.state.ready(number, message.pid, message.activations, now)
            elif isinstance(message, Failed):
                self.state.failed(message.error)
                return
        self._obey()  # before the next event: commands are about workers as they are now
        if dead and self._handles.get(number) is handle:
            cause, pid = handle.cause_of_death(), handle.pid
            del self._handles[number]
            handle.end()
            self.state.died(number, pid, cause, time.monotonic())
            self._obey()

    def _obey(self) -> None:
        """Carries out commands until there are none: some bring about others."""
        delivered: dict[Owner, list[Result]] = {}
        while commands := self.state.take():
            for command in commands:
                if isinstance(command, Deliver):
                    self._collect(command, delivered)
                elif isinstance(command, SendBatch):
                    self._send(command)
                elif isinstance(command, StartWorker):
                    self._start_worker(command)
                elif isinstance(command, KillWorker):
                    self._handles[command.worker].kill()
                elif isinstance(command, RetireWorker):
                    handle = self._handles.pop(command.worker)
                    handle.end()
                    self.state.died(command.worker, handle.pid, "age", time.monotonic())
                elif isinstance(command, Broken):
                    self._end = command.error
                    return
        for owner, results in delivered.items():
            if owner.deliver(results):
                self._owners.discard(owner)

    def _collect(self, command: Deliver, delivered: dict[Owner, list[Result]]) -> None:
        item, *rest = command
        delivered.setdefault(item.owner, []).append(Result(item.value, item.index, *rest))  # type: ignore[arg-type]

    def _send(self, command: SendBatch) -> None:
        try:
            self._handles[command.worker].send(
                RunBatch([item.number for item in command.items], [item.value for item in command.items])
            )
        except (Exception, SystemExit) as error:  # a user's object may raise anything while it is pickled
            self.state.unsent(command.worker, command.items, error, time.monotonic())

    def _start_worker(self, command: StartWorker) -> None:
        try:
            self._handles[command.worker] = self._source.start(command.worker, command.device)
        except OSError as error:  # no more processes or descriptors
            self.state.died(command.worker, None, repr(error), time.monotonic())

    def _end_all(self) -> None:
        with contextlib.ExitStack() as stack:  # each of these is done, also where another fails
            stack.callback(self._fail_all)
            stack.callback(self._put_away_the_bell)
            stack.callback(self._source.close)
            for handle in self._handles.values():
                stack.callback(handle.end)
            for handle in self._handles.values():
                handle.ask_to_end()
        self._handles.clear()

    def _put_away_the_bell(self) -> None:
        with self._lock:
            self._asleep = False
            self._bell.close()
            self._hear.close()

    def _fail_all(self) -> None:
        with self._lock:
            owners, self._owners = self._owners, set()
        for owner in owners:
            owner.fail(self._end or PoolError(CLOSED))
        self._inbox.clear()
