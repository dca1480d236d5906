"""Prefetcher alone; tests/layers/test_reader.py holds every reader to what it promises."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

from pycaffe.data import prefetch
from pycaffe.data.prefetch import Batch, BatchSource, Prefetcher
from pycaffe.errors import DataError

WAIT = 20.0  # seconds after which a test fails instead of hanging


class Counter(BatchSource):
    """Batches [0], [1], [2], … `gates` hold up the making of some, `bad` ones fail: in the plan if negative."""

    def __init__(self, bad: tuple[int, ...] = (), gates: dict[int, threading.Event] | None = None) -> None:
        self.number = 0
        self.bad = bad
        self.gates = gates or {}
        self.planned = threading.Semaphore(0)
        self.threads: set[threading.Thread] = set()

    def plan(self) -> int:
        self.number += 1
        self.planned.release()
        if -(self.number - 1) in self.bad and self.number > 1:
            raise DataError(f"cannot read {self.number - 1}")
        return self.number - 1

    def make(self, plan: int) -> Batch:
        self.threads.add(threading.current_thread())
        if plan in self.gates:
            assert self.gates[plan].wait(WAIT)
        if plan in self.bad and plan:
            raise DataError(f"cannot make {plan}")
        return [np.array([plan], np.float32)]

    def state(self) -> dict[str, Any]:
        return {"number": self.number}

    def restore(self, state: dict[str, Any]) -> None:
        self.number = int(state["number"])


def value(batches: Prefetcher) -> int:
    return int(batches.next()[0][0])


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "available_cores", lambda: 3)


def test_batches_come_in_order_though_a_later_one_is_ready_first() -> None:
    gate = threading.Event()
    source = Counter(gates={0: gate})
    batches = Prefetcher(source, 3)
    got: list[int] = []
    reader = threading.Thread(target=lambda: got.extend(value(batches) for _ in range(4)))
    reader.start()
    for _ in range(3):  # all are planned while the first is held up
        assert source.planned.acquire(timeout=WAIT)
    assert got == []
    gate.set()
    reader.join(WAIT)
    assert got == [0, 1, 2, 3]


def test_no_more_than_the_depth_is_read_ahead_and_it_does_not_count_as_read() -> None:
    gate = threading.Event()
    source = Counter(gates={5: gate})
    batches = Prefetcher(source, 2)
    assert [value(batches) for _ in range(3)] == [0, 1, 2]
    assert batches.state() == {"number": 3}
    for _ in range(5):
        assert source.planned.acquire(timeout=WAIT)
    assert source.number == 5
    gate.set()


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize(("bad", "message"), [(2, "cannot make 2"), (-2, "cannot read 2")])
def test_an_error_comes_in_its_place_and_the_next_batch_after_it(depth: int, bad: int, message: str) -> None:
    batches = Prefetcher(Counter(bad=(bad,)), depth)
    assert [value(batches) for _ in range(2)] == [0, 1]
    with pytest.raises(DataError, match=message):
        batches.next()
    assert batches.state() == {"number": 3}
    assert [value(batches) for _ in range(2)] == [3, 4]


def test_restore_forgets_what_was_read_ahead() -> None:
    batches = Prefetcher(Counter(), 4)
    assert [value(batches) for _ in range(3)] == [0, 1, 2]
    batches.restore({"number": 100})
    assert batches.state() == {"number": 100}
    assert [value(batches) for _ in range(3)] == [100, 101, 102]
    with pytest.raises(KeyError):
        batches.restore({})
    assert value(batches) == 103


def test_threads_end_with_the_prefetcher_even_while_they_wait_or_work() -> None:
    gate = threading.Event()
    source = Counter(gates={2: gate})
    batches = Prefetcher(source, 3)
    assert [value(batches) for _ in range(2)] == [0, 1]
    threads = source.threads
    assert threads
    del batches
    gc.collect()
    gate.set()
    for thread in list(threads):
        thread.join(WAIT)
        assert not thread.is_alive()


def test_without_depth_there_is_no_thread() -> None:
    source = Counter()
    batches = Prefetcher(source, 0)
    assert [value(batches) for _ in range(3)] == [0, 1, 2]
    assert source.threads == {threading.current_thread()}
