"""Workers that a zygote forks: their answers and their deaths, which are real."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from pycaffe.workers.forked import ForkedWorker
from pycaffe.workers.messages import BatchDone, Ready, RunBatch, Unreadable
from tests.workers.forked_pool import (
    ForkedPool,
    Unpickles,
    await_death,
    await_end,
    next_message,
    next_messages,
    nothing_left_behind,
)
from tests.workers.tiny_net import SHAPE, expected_scores


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> Iterator[ForkedPool]:
    with nothing_left_behind():
        made = ForkedPool(tmp_path, batch_size=4)
        yield made
        made.close()


# -- a life


def test_workers_answer(pool: ForkedPool) -> None:
    workers = [pool.start() for _ in range(3)]
    for worker in workers:
        assert next_message(worker) == Ready(worker.pid, 4 * (60 + 7))
    for count in (4, 1, 3):
        for worker in workers:
            pool.check(worker, count)
    assert {psutil.Process(worker.pid).ppid() for worker in workers} == {pool.zygote.pid}


def test_every_worker_draws_its_own_random_numbers(pool: ForkedPool) -> None:
    answers = []
    for worker in (pool.ready(), pool.ready()):
        worker.send(RunBatch([0], ["random"]))
        answers.append(next_message(worker).stacked["score"])
    assert not np.allclose(*answers)


def test_arrays_of_any_size_both_ways(tmp_path: pathlib.Path) -> None:
    def sums(item: Any) -> Any:
        return np.full(SHAPE, item.astype(np.float64).sum(), np.float32)

    def large(outputs: Any) -> Any:
        return np.repeat(outputs["score"], 1 << 20)

    with nothing_left_behind():
        pool = ForkedPool(tmp_path, preprocess=sums, postprocess=large)
        worker = pool.ready()
        for size in (10, 1 << 16, 1 << 22):
            for _ in range(3):
                worker.send(RunBatch([0], [np.ones(size, np.uint8)]))
            for answer in next_messages(worker, 3):
                (done,) = answer.items()
                assert done.error is None
                assert done.outputs.shape == (7 << 20,)
                want = expected_scores(pool.weights, pool.model, np.full(SHAPE, size, np.float32))
                np.testing.assert_allclose(done.outputs[:: 1 << 20], want, rtol=1e-3)
        pool.close()


def test_interrupts_and_terminations_of_the_group_are_the_pools_business(pool: ForkedPool) -> None:
    worker = pool.ready()
    assert pool.zygote.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pool.zygote.pid, number)
        os.kill(worker.pid, number)
    pool.check(worker)
    pool.check(pool.ready())


# -- deaths of workers


@pytest.mark.parametrize(("item", "cause"), [("exit", "exit status 3"), ("segfault", "SIGSEGV")])
def test_what_a_worker_died_of(pool: ForkedPool, item: str, cause: str) -> None:
    worker, other = pool.ready(), pool.ready()
    worker.send(RunBatch([0], [item]))
    assert await_death(worker) == []
    assert worker.cause_of_death() == cause
    worker.send(RunBatch([1], [1]))  # goes nowhere
    worker.end()
    worker.end()
    pool.check(other)
    pool.check(pool.ready())


def test_killing_one(pool: ForkedPool) -> None:
    worker = pool.ready()
    pool.check(worker)
    worker.kill()
    assert await_death(worker) == []
    assert worker.cause_of_death() == "SIGKILL"
    worker.kill()  # it is dead already
    pool.check(pool.ready())


def test_killing_one_that_hangs_or_is_stopped(pool: ForkedPool) -> None:
    hanging, stopped = pool.ready(), pool.ready()
    hanging.send(RunBatch([0], ["hang with the interpreter's lock"]))
    os.kill(stopped.pid, signal.SIGSTOP)
    for worker in (hanging, stopped):
        for _ in range(4):
            worker.send(RunBatch([1], [b"x" * (32 << 20)]))  # never waits
        worker.kill()
        await_death(worker)
        assert worker.cause_of_death() == "SIGKILL"


def test_what_was_answered_before_a_death_counts(pool: ForkedPool) -> None:
    worker = pool.ready()
    worker.send(RunBatch([0], ["an error"]))
    worker.send(RunBatch([1], ["exit"]))
    said = await_death(worker)
    assert [type(message) for message in said] == [BatchDone]


def test_a_death_is_seen_though_the_workers_own_child_holds_the_pipe(pool: ForkedPool) -> None:
    worker = pool.ready()
    worker.send(RunBatch([0], ["fork and stay"]))
    next_message(worker)
    (child,) = psutil.Process(worker.pid).children()
    try:
        worker.kill()
        assert await_death(worker) == []
        assert worker.cause_of_death() == "SIGKILL"
    finally:
        child.kill()
        await_end_of(child)


def await_end_of(process: psutil.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        await_end(os.pidfd_open(process.pid))


def test_ending_one_in_the_middle_of_a_batch(pool: ForkedPool) -> None:
    worker = pool.ready()
    process = os.pidfd_open(worker.pid)
    worker.send(RunBatch([0], ["hang with the interpreter's lock"]))
    worker.end()
    await_end(process, 0)


def test_old_kernels_have_no_descriptors_of_processes(pool: ForkedPool, monkeypatch: pytest.MonkeyPatch) -> None:
    started = ForkedWorker.has_started

    def without(self: ForkedWorker, pid: int, handle: int | None) -> None:
        if handle is not None:
            os.close(handle)
        started(self, pid, None)

    monkeypatch.setattr(ForkedWorker, "has_started", without)
    worker = pool.ready()
    worker.kill()
    await_death(worker)
    assert worker.cause_of_death() == "SIGKILL"
    other = pool.ready()
    pool.check(other)


def test_an_answer_that_does_not_unpickle(tmp_path: pathlib.Path) -> None:
    with nothing_left_behind():
        pool = ForkedPool(tmp_path, postprocess=lambda outputs: Unpickles(int, "no number"))
        worker = pool.ready()
        worker.send(RunBatch([0], [np.zeros(SHAPE)]))
        answer = next_message(worker)
        assert isinstance(answer, Unreadable)
        assert isinstance(answer.error, ValueError)
        pool.close()
