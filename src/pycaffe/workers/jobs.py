"""Who waits for results: a stream that somebody iterates, or one future. See `driver.Owner`."""

from __future__ import annotations

import queue
from concurrent.futures import Future

from pycaffe.workers.result import Result

__all__ = ["Single", "Stream"]


class Stream:
    """Results on their way to the thread that iterates."""

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[list[Result] | BaseException] = queue.SimpleQueue()

    def deliver(self, results: list[Result]) -> bool:
        self._arrived.put(results)
        return False  # it says itself when it has them all

    def fail(self, error: BaseException) -> None:
        self._arrived.put(error)

    def next(self, *, wait: bool) -> list[Result]:
        """The next results; without waiting, none where none are there.

        Raises:
            BaseException: why there will be no more.
        """
        try:
            arrived = self._arrived.get(block=wait)
        except queue.Empty:
            return []
        if isinstance(arrived, BaseException):
            raise arrived
        return arrived


class Single:
    """One result on its way into a future."""

    def __init__(self) -> None:
        self.future: Future[Result] = Future()

    def deliver(self, results: list[Result]) -> bool:
        if self.future.set_running_or_notify_cancel():
            self.future.set_result(results[0])
        return True

    def fail(self, error: BaseException) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
