"""Workers in the pool's own process: threads, or the caller itself. See `worker_handle.py`.

Nothing is pickled, and nothing can be killed: an item that hangs holds its worker for ever, and one that ends the
process ends it.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from pycaffe.workers.messages import BatchDone, Failed, Ready, RunBatch, Settings, Timing
from pycaffe.workers.runner import Runner

__all__ = ["SequentialSource", "SequentialWorker", "ThreadSource", "ThreadWorker"]


def _run(runner: Runner, batch: RunBatch) -> BatchDone:
    """The answer, as it stays when the net runs again."""
    done = runner.run(batch.numbers, batch.values)
    return BatchDone([], {}, list(done.items()), Timing(*done.timing))


class ThreadSource:
    """Starts threads, each with a net of its own.

    Args:
        settings: of all of them.
        wake: is called after each message: the pool has to ask for it.
    """

    def __init__(self, settings: Settings, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._wake = wake

    def start(self, number: int, device: str) -> ThreadWorker:
        """A new worker; see `WorkerSource`."""
        return ThreadWorker(dataclasses.replace(self._settings, device=device), self._wake)

    def close(self) -> None:
        """Holds nothing."""


class ThreadWorker:
    """A thread."""

    pid = os.getpid()
    waitables: tuple[Any, ...] = ()

    def __init__(self, settings: Settings, wake: Callable[[], None]) -> None:
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox: deque[Any] = deque()
        self._wake = wake
        self._thread = threading.Thread(target=self._work, args=(settings,), name="pycaffe-worker", daemon=True)
        self._thread.start()

    def _work(self, settings: Settings) -> None:
        try:
            runner = Runner(settings)
        except Exception as error:
            self._say(Failed(error))
            return
        self._say(Ready(os.getpid(), runner.activations))
        while (batch := self._inbox.get()) is not None:
            self._say(_run(runner, batch))

    def _say(self, message: object) -> None:
        self._outbox.append(message)
        self._wake()

    def send(self, message: object) -> None:
        self._inbox.put(message)

    def receive(self) -> tuple[list[Any], bool]:
        messages = []
        while self._outbox:
            messages.append(self._outbox.popleft())
        return messages, False

    def kill(self) -> None:
        """Nobody can: the pool allows no `item_timeout` here."""

    def cause_of_death(self) -> str:
        return "the end of its thread"

    def ask_to_end(self) -> None:
        self._inbox.put(None)

    def end(self) -> None:
        self.ask_to_end()
        self._thread.join()


class SequentialSource:
    """Makes one worker, which runs where it is asked for its answer."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self, number: int, device: str) -> SequentialWorker:
        """The worker; see `WorkerSource`."""
        return SequentialWorker(dataclasses.replace(self._settings, device=device))

    def close(self) -> None:
        """Holds nothing."""


class SequentialWorker:
    """A net that runs in `receive`, one batch each time."""

    pid = os.getpid()
    waitables: tuple[Any, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._runner: Runner | None = None
        self._inbox: deque[Any] = deque()

    def send(self, message: object) -> None:
        self._inbox.append(message)

    def receive(self) -> tuple[list[Any], bool]:
        if self._runner is None:
            try:
                self._runner = Runner(self._settings)
            except Exception as error:
                return [Failed(error)], False
            return [Ready(os.getpid(), self._runner.activations)], False
        return ([_run(self._runner, self._inbox.popleft())] if self._inbox else []), False

    def kill(self) -> None:
        """Nobody can: the pool allows no `item_timeout` here."""

    def cause_of_death(self) -> str:
        return "nothing"

    def ask_to_end(self) -> None:
        self._inbox.clear()

    def end(self) -> None:
        self._inbox.clear()
        self._runner = None
