"""Batches read ahead of the net, on threads.

    a worker:  [planning lock: room for a batch? ─→ source.plan() ─→ source.state()] ─→ source.make(plan) ─→ ready[n]
    the net:   next() ─→ takes ready[n] in the order of n, waits only where it is not ready yet

What has an order, reading records and drawing random numbers, happens in `plan`, one batch after the other. What takes
time, decoding and transforming, happens in `make`, several batches at once; OpenCV and NumPy let go of the GIL there.
So the batches are the same however many threads there are and however they are scheduled.

With each batch goes the source's state after it. That of the batch that was taken last is the state of the whole: what
was read ahead does not count as read.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from abc import ABC, abstractmethod
from typing import Any

from pycaffe.blob import FloatArray
from pycaffe.threads import available_cores

__all__ = ["Batch", "BatchSource", "Prefetcher"]

Batch = list[FloatArray]
"""The values of each top."""

JOIN_SECONDS = 5.0  # a worker may hang in a file system that does not answer; the interpreter ends all the same


class BatchSource(ABC):
    """Where batches come from."""

    @abstractmethod
    def plan(self) -> Any:
        """What the next batch consists of. Never runs on two threads at once."""

    def skip(self) -> None:
        """Passes the next batch over; nothing of it is decoded."""
        self.plan()

    @abstractmethod
    def make(self, plan: Any) -> Batch:
        """The batch of a plan. Runs on several threads at once: it must not change the source."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """From where the next plan goes on, as a JSON-able value."""

    @abstractmethod
    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, whatever a thread that a fork cut off has left.

        Raises:
            DataError: the data have changed and `state` does not fit them.
            KeyError, TypeError, ValueError: this is no such state.
        """


class _Queue:
    """What the workers and the net share. The workers know nothing of the Prefetcher, so that it can go away."""

    def __init__(self, source: BatchSource, depth: int) -> None:
        self.source = source
        self.depth = depth
        self.planning = threading.Lock()
        self.reading = threading.Lock()  # a part of planning, during which nobody may fork
        # Re-entrant, because a garbage collection inside it may end another queue, or this one.
        self.changed = threading.Condition(threading.RLock())
        self.planned = self.taken = 0
        self.ready: dict[int, tuple[Batch | BaseException, dict[str, Any]]] = {}
        self.stopped = False
        self.workers: list[threading.Thread] = []

    def start(self) -> None:
        for index in range(min(self.depth, available_cores())):
            worker = threading.Thread(target=self._work, name=f"pycaffe-prefetch-{index}", daemon=True)
            worker.start()
            self.workers.append(worker)
        _queues.add(self)

    def stop(self, pid: int) -> None:
        """Lets the workers end; they finish the batch that they are at."""
        if pid == os.getpid():  # a forked child has no workers, and locks that nobody releases
            with self.changed:
                self.stopped = True
                self.changed.notify_all()

    def join(self, timeout: float | None = None) -> None:
        for worker in self.workers:
            worker.join(timeout)

    def take(self) -> tuple[Batch | BaseException, dict[str, Any]]:
        with self.changed:
            self.changed.wait_for(lambda: self.taken in self.ready)
            result = self.ready.pop(self.taken)
            self.taken += 1
            self.changed.notify_all()
        return result

    def _work(self) -> None:
        while True:
            with self.planning:
                with self.changed:
                    self.changed.wait_for(lambda: self.stopped or self.planned - self.taken < self.depth)
                    if self.stopped:
                        return
                number, plan, failure = self.planned, None, None
                with self.reading:
                    try:
                        plan = self.source.plan()
                    except BaseException as error:  # whatever it is, the net waits for this batch
                        failure = error
                    state = self.source.state()
                self.planned += 1
            result = failure or self._make(plan)
            with self.changed:
                self.ready[number] = (result, state)
                self.changed.notify_all()
            del plan, failure, result, state  # not kept while this thread waits

    def _make(self, plan: Any) -> Batch | BaseException:
        try:
            return self.source.make(plan)
        except BaseException as error:
            return error


_queues: weakref.WeakSet[_Queue] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Before the interpreter takes apart what they use."""
    for queue in list(_queues):
        queue.stop(os.getpid())
        queue.join(JOIN_SECONDS)


class _Fork:
    """No fork may cut off a thread that reads: LMDB, HDF5 and generators hold locks, for which the child would wait."""

    def __init__(self) -> None:
        self.forking = threading.Lock()
        self.halted: list[_Queue] = []

    def before(self) -> None:
        self.forking.acquire()
        self.halted = list(_queues)
        for queue in self.halted:
            queue.reading.acquire()

    def after_in_parent(self) -> None:
        for queue in self.halted:
            queue.reading.release()
        self.halted = []
        self.forking.release()

    def after_in_child(self) -> None:
        self.forking = threading.Lock()
        self.halted = []
        _queues.clear()


if hasattr(os, "register_at_fork"):
    _fork = _Fork()
    os.register_at_fork(before=_fork.before, after_in_parent=_fork.after_in_parent, after_in_child=_fork.after_in_child)


class Prefetcher:
    """Takes batches from a source, up to `depth` of them ahead; without threads where that is 0.

    The threads start with the first batch and end with this object. A forked child starts its own, at the place where
    the parent was.
    """

    def __init__(self, source: BatchSource, depth: int) -> None:
        self._source = source
        self._depth = depth
        self._state = source.state()
        self._pid = os.getpid()
        self._queue: _Queue | None = None

    def next(self) -> Batch:
        """The next batch. After an error the one behind it comes next.

        Raises:
            whatever reading or making it raised.
        """
        if self._pid != os.getpid():
            self._queue = None
            self._source.restore(self._state)
            self._pid = os.getpid()
        if self._depth == 0:
            try:
                return self._source.make(self._source.plan())
            finally:
                self._state = self._source.state()
        if self._queue is None:
            self._queue = self._start()
        result, self._state = self._queue.take()
        if isinstance(result, BaseException):
            raise result
        return result

    def _start(self) -> _Queue:
        queue = _Queue(self._source, self._depth)
        weakref.finalize(self, queue.stop, os.getpid()).atexit = False
        queue.start()
        return queue

    def state(self) -> dict[str, Any]:
        """From where the batch after the last one taken goes on."""
        return self._state

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state` of this source or of another one like it. Raises what the source raises."""
        if self._queue is not None and self._pid == os.getpid():
            self._queue.stop(self._pid)
            self._queue.join()
        self._queue = None
        self._pid = os.getpid()
        try:
            self._source.restore(state)
        except Exception:
            self._source.restore(self._state)  # it may have gone half the way
            raise
        self._state = self._source.state()
