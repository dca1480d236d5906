"""A zygote and its workers, driven by hand, for the tests of both."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pathlib
import select
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import psutil

from pycaffe.workers.forked import ForkedWorker, Zygote
from pycaffe.workers.messages import BatchDone, Ready, RunBatch, Settings
from tests.workers.tiny_net import SHAPE, expected_scores, write_tiny_net

SECONDS = 60  # generous: the machine may be busy, and only what is broken takes for ever


def obey(item: Any) -> Any:
    """Does to its worker what the item says."""
    if not isinstance(item, str):
        return item
    if item == "exit":
        os._exit(3)
    elif item == "segfault":
        ctypes.string_at(0)
    elif item == "hang with the interpreter's lock":
        ctypes.PyDLL(None).sleep(1000)
    elif item == "random":
        return np.full(SHAPE, np.random.random())
    elif item == "fork and stay":
        if os.fork() == 0:
            select.select([], [], [], 1000)
            os._exit(0)
    else:
        raise ValueError(item)
    return np.zeros(SHAPE)


class Unpickles:
    """A `preprocess` that calls a function where it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.state = function, arguments

    def __reduce__(self) -> Any:
        return self.state

    def __call__(self, item: Any) -> Any:
        return item


def start_thread() -> Callable[[Any], Any]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    return obey


class ForkedPool:
    """A zygote and its workers, driven by hand."""

    def __init__(self, folder: pathlib.Path, **settings: Any) -> None:
        self.model, self.weights = write_tiny_net(folder)
        self.zygote = Zygote(Settings(self.model, self.weights, **{"preprocess": obey, **settings}))
        self.workers: list[ForkedWorker] = []

    def start(self) -> ForkedWorker:
        worker = self.zygote.start(len(self.workers))
        self.workers.append(worker)
        return worker

    def ready(self) -> ForkedWorker:
        worker = self.start()
        assert next_message(worker) == Ready(worker.pid, 4 * (60 + 7))
        return worker

    def check(self, worker: ForkedWorker, count: int = 3) -> None:
        """The worker answers rightly."""
        data = np.random.default_rng(1).standard_normal((count, *SHAPE)).astype(np.float32)
        worker.send(RunBatch(list(range(count)), list(data)))
        answer = next_message(worker)
        assert isinstance(answer, BatchDone), answer
        for item in answer.items():
            assert item.error is None
            want = expected_scores(self.weights, self.model, data[item.number])
            np.testing.assert_allclose(item.outputs["score"], want, rtol=1e-4)

    def close(self) -> None:
        for worker in self.workers:
            worker.ask_to_end()
        for worker in self.workers:
            worker.end()
        self.zygote.close()


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    files, threads = descriptors(), threading.active_count()
    known = psutil.Process().children(recursive=True)
    yield
    assert [child for child in psutil.Process().children(recursive=True) if child not in known] == []
    assert descriptors() == files, (files, descriptors())
    assert threading.active_count() == threads


def descriptors() -> dict[str, str]:
    """What this process has open, by number."""
    gc.collect()  # nets of this very process hold their mapped weights until then
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


def next_message(worker: ForkedWorker) -> Any:
    return next_messages(worker, 1)[0]


def next_messages(worker: ForkedWorker, count: int) -> list[Any]:
    deadline = time.monotonic() + SECONDS
    said: list[Any] = []
    while True:
        messages, dead = worker.receive()
        said += messages
        if len(said) >= count:
            assert len(said) == count, said
            return said
        assert not dead, worker.cause_of_death()
        assert wait(worker.waitables, deadline - time.monotonic()), "no answer"


def await_death(worker: ForkedWorker) -> list[Any]:
    """What it still said."""
    deadline = time.monotonic() + SECONDS
    said: list[Any] = []
    while True:
        messages, dead = worker.receive()
        said += messages
        if dead:
            return said
        assert wait(worker.waitables, deadline - time.monotonic()), "it lives"


def await_end(process: int, seconds: float = SECONDS) -> None:
    """Waits for the end of a process, by its pidfd."""
    assert select.select([process], [], [], seconds)[0], "it lives"
    os.close(process)
