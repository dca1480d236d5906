"""`Pool`: a net in several processes, over any number of items.

    items ─read lazily─→ Schedule ─batches─→ pipe ─→ worker: unpickle → preprocess → forward ─┐
                            ▲  (pure)                                                         │
    Result ←──── finished ──┤←───────────────────────── pipe ←── outputs or error, item by item
                            │
                  died ─────┘←── sentinel of the process: its items wait again, a new worker starts

The life of one call of `imap_unordered`: read as many items as the workers can hold; send batches to whoever is free;
wait until a pipe has an answer or a process has died; yield results; again, until the input is at its end and nothing
is unfinished. All of it happens in the caller's thread, so a caller who pauses pauses the pool, and nothing piles up.

One pipe a worker and no lock that two processes share: a worker that dies holding its end hurts only itself.
"""

from __future__ import annotations

import os
import pickle
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import wait
from typing import Any

from pycaffe.errors import InputError, PoolError, WorkerDied
from pycaffe.threads import available_cores
from pycaffe.workers.messages import BatchDone, Failed, Ready, Settings
from pycaffe.workers.process import WorkerProcess, own_memory
from pycaffe.workers.result import Result
from pycaffe.workers.schedule import Schedule, Task

__all__ = ["Pool"]

READ_SECONDS = 0.02  # a slow input is read for so long before answers are looked at again


class Pool:
    """Runs a net over items in worker processes.

        with pycaffe.Pool("deploy.prototxt", "weights.caffemodel", workers=4, preprocess=ImagePreprocess()) as pool:
            for result in pool.imap_unordered(paths):
                print(result.item, result.outputs or result.error)

    Each worker loads the net once and runs it with one thread. Every item ends as exactly one `Result`: an exception is
    the error of its item, and a worker that dies is replaced and its items run again, alone, so that an item that kills
    its worker costs no other. Processes are spawned: a script needs `if __name__ == "__main__":`.

    Args:
        model: a prototxt.
        weights: a caffemodel; None for a net without parameters.
        workers: how many; None for one a core.
        preprocess: makes of an item the net's only input (C, H, W), or a dict of inputs by blob name, each without the
            batch axis. Has to pickle. None takes a dict as it is, and stretches images (path, bytes, H×W×C uint8 array)
            to the size of the input, with no mean.
        outputs: names of the blobs that a result holds; None for the net's outputs.
        batch_size: so many items go through one forward.
        retries: an item whose worker dies is tried so often again.

    Raises:
        InputError: an argument makes no sense.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        weights: str | os.PathLike[str] | None = None,
        *,
        workers: int | None = None,
        preprocess: Callable[[Any], Any] | None = None,
        outputs: Iterable[str] | None = None,
        batch_size: int = 1,
        retries: int = 2,
    ) -> None:
        count = available_cores() if workers is None else workers
        for name, value, least in (("workers", count, 1), ("batch_size", batch_size, 1), ("retries", retries, 0)):
            if value < least:
                raise InputError(f"{name} is at least {least}, not {value!r}")
        names = tuple(outputs) if outputs is not None else None
        self._settings = Settings(
            os.fspath(model), os.fspath(weights) if weights is not None else None, preprocess, names, batch_size
        )
        _check_pickles(preprocess)
        self._schedule = Schedule(batch_size, retries)
        self._workers: dict[int, WorkerProcess] = {}
        self._tasks: dict[int, Task] = {}
        self._results: deque[Result] = deque()
        self._next_number = 0
        self._deaths_at_start = 0
        self._working = False
        self._closed = False
        try:
            for number in range(count):
                self._start(number)
        except BaseException:
            self.close()
            raise

    # -- for users

    def map(self, items: Iterable[Any]) -> list[Result]:
        """The results of all items, in order."""
        return sorted(self.imap_unordered(items), key=lambda result: result.index)

    def imap_unordered(self, items: Iterable[Any]) -> Iterator[Result]:
        """The results as they come. Items are read as workers can take them: an endless input is fine.

        Raises:
            PoolError: the pool is closed or has another job.
            WorkerDied: the workers die while they load the net.
            ProtoError, NetError, WeightsError: the workers cannot load the net. The pool is closed then.
        """
        return self._run(_Job(iter(items)))

    def imap(self, items: Iterable[Any]) -> Iterator[Result]:
        """The results in order. Reads ahead of a slow item by a bounded number of others."""
        window = 4 * max(1, len(self._workers)) * self._schedule.batch_size
        early: dict[int, Result] = {}
        expected = 0
        job = _Job(iter(items), limit=window)
        for result in self._run(job):
            early[result.index] = result
            while expected in early:
                yield early.pop(expected)
                expected += 1
                job.limit = expected + window

    def worker_memory(self) -> list[int]:
        """Bytes of memory that each live worker shares with no other process (USS); empty where that is unknown."""
        memories = [own_memory(worker.process.pid or 0) for worker in self._workers.values()]
        return [memory for memory in memories if memory is not None]

    def close(self) -> None:
        """Ends the workers. What they were at is lost."""
        self._closed = True
        for worker in self._workers.values():
            worker.ask_to_end()
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # -- the loop

    def _run(self, job: _Job) -> Iterator[Result]:
        if self._closed:
            raise PoolError("The pool is closed.")
        if self._working:
            raise PoolError("The pool is at work on another job: read all its results first, or open another pool.")
        self._working = True
        try:
            while True:
                self._read(job)
                self._send()
                if not self._results:
                    if job.exhausted and not self._tasks:
                        return
                    self._listen(timeout=0 if self._room(job) else None)
                while self._results:
                    yield self._results.popleft()
        except (KeyboardInterrupt, SystemExit):
            # It may have come between an answer's arrival and its entry in the books; they cannot be trusted any more.
            self.close()
            raise
        finally:
            self._working = False
            self._tasks.clear()
            self._results.clear()
            self._schedule.abandon()

    def _room(self, job: _Job) -> bool:
        below_limit = job.limit is None or job.index < job.limit
        return not job.exhausted and below_limit and self._schedule.room(len(self._workers)) > 0

    def _read(self, job: _Job) -> None:
        """Reads items while there is room, and from a slow input no longer than READ_SECONDS and one item."""
        until = time.monotonic() + READ_SECONDS
        while self._room(job):
            try:
                item = next(job.items)
            except StopIteration:
                job.exhausted = True
                return
            index, number = job.index, self._next_number
            job.index, self._next_number = index + 1, number + 1
            try:
                payload = pickle.dumps(item, pickle.HIGHEST_PROTOCOL)
            except Exception as error:  # a user's object may raise anything while it is pickled
                self._results.append(Result(item, index, None, error, 1, -1, 0.0))
                continue
            self._tasks[number] = task = Task(number, index, item, payload)
            self._schedule.add(task)
            if time.monotonic() > until:
                return

    def _send(self) -> None:
        for number, batch in self._schedule.assign():
            payload = [(task.number, task.payload) for task in batch]
            self._workers[number].send(pickle.dumps(payload, pickle.HIGHEST_PROTOCOL))

    def _listen(self, timeout: float | None) -> None:
        """Waits until a worker has answered or died, and enters what came."""
        ready = set(wait([end for worker in self._workers.values() for end in worker.waitables], timeout))
        for worker in list(self._workers.values()):
            connection, sentinel = worker.waitables
            if connection in ready or sentinel in ready:
                # The pipe first, also of a dead worker: what it answered before it died is good.
                messages, ended = worker.receive()
                for message in messages:
                    self._enter(worker, message)
                if ended or sentinel in ready:
                    self._replace(worker)

    def _enter(self, worker: WorkerProcess, message: Ready | Failed | BatchDone) -> None:
        if isinstance(message, Ready):
            worker.ready = True
            self._deaths_at_start = 0
            self._schedule.start(worker.number)
        elif isinstance(message, Failed):
            self.close()
            raise message.error
        else:
            self._schedule.finished(worker.number)
            for done in message.items:
                task = self._tasks.pop(done.number, None)
                if task is not None:  # else of a job that was abandoned
                    self._results.append(
                        Result(
                            task.item, task.index, done.outputs, done.error, task.attempts, worker.number, done.seconds
                        )
                    )

    # -- deaths

    def _start(self, number: int) -> None:
        self._workers[number] = WorkerProcess(number, self._settings)

    def _replace(self, worker: WorkerProcess) -> None:
        cause = worker.join_dead()
        who = f"Worker {worker.number} (pid {worker.process.pid}) died with {cause}"
        hint = " Often the kernel's out-of-memory killer." if cause == "SIGKILL" else ""
        for task in self._schedule.died(worker.number):
            if self._tasks.pop(task.number, None) is not None:
                message = f"{who} while running item {task.index} alone (attempt {task.deaths} of {task.deaths}).{hint}"
                self._results.append(
                    Result(task.item, task.index, None, WorkerDied(message), task.deaths, worker.number, 0.0)
                )
        if not worker.ready:
            self._deaths_at_start += 1
            if self._deaths_at_start > self._schedule.retries:
                self.close()
                raise WorkerDied(f"{who} while loading the net.{hint}")
        self._start(worker.number)


class _Job:
    """The input of one call.

    items: what is still to be read.
    limit: the index that reading has to stay below for now; None for no such limit.
    """

    def __init__(self, items: Iterator[Any], limit: int | None = None) -> None:
        self.items = items
        self.limit = limit
        self.index = 0
        self.exhausted = False


def _check_pickles(preprocess: Callable[[Any], Any] | None) -> None:
    try:
        pickle.dumps(preprocess)
    except Exception as error:  # a user's object may raise anything while it is pickled
        raise InputError(
            f"preprocess={preprocess!r} does not pickle, and has to reach the workers ({error}). "
            "Use a function or a class of a module, not a lambda or a function inside a function."
        ) from error
