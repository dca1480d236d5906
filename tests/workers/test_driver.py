from __future__ import annotations

import threading
from typing import Any

from pycaffe.workers.driver import Driver
from pycaffe.workers.messages import Ready
from pycaffe.workers.state_machine import PoolState


class Worker:
    """In this process, as a thread is: it speaks at the worst moment, just after it was asked."""

    pid = 1
    waitables: tuple[Any, ...] = ()

    def __init__(self, driver: Driver) -> None:
        self.driver, self.asked, self.said = driver, 0, list[Any]()
        self.heard = threading.Event()

    def receive(self) -> tuple[list[Any], bool]:
        self.asked += 1
        messages, self.said = self.said, []
        if self.asked == 1:
            self.said = [Ready(1, 0)]
            self.driver.wake()
        if messages:
            self.heard.set()
        return messages, False

    def ask_to_end(self) -> None:
        pass

    def end(self) -> None:
        pass


class Source:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def start(self, number: int, device: str) -> Worker:
        return self.worker

    def close(self) -> None:
        pass


def test_a_word_between_two_looks_is_heard() -> None:
    driver = Driver(PoolState(["cpu"], batch_size=1))
    worker = Worker(driver)
    driver.start(Source(worker), thread=True)  # type: ignore[arg-type]
    driver.ring()
    driver.post(lambda state, now: None)  # the first look
    assert worker.heard.wait(20)
    driver.close()
