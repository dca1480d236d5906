"""The zygote and the workers that it forks, without a pool: real deaths, of workers, the zygote and the parent."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any

import numpy as np
import psutil
import pytest

from pycaffe.errors import ProtoError
from pycaffe.workers.forked import ForkedWorker, Zygote
from pycaffe.workers.messages import BatchDone, Failed, Ready, RunBatch, Settings, Unreadable
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


class Pool:
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
    files, threads = sorted(os.listdir("/proc/self/fd")), threading.active_count()
    known = psutil.Process().children(recursive=True)
    yield
    assert [child for child in psutil.Process().children(recursive=True) if child not in known] == []
    assert sorted(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> Iterator[Pool]:
    with nothing_left_behind():
        made = Pool(tmp_path, batch_size=4)
        yield made
        made.close()


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


# -- a life


def test_workers_answer(pool: Pool) -> None:
    workers = [pool.start() for _ in range(3)]
    for worker in workers:
        assert next_message(worker) == Ready(worker.pid, 4 * (60 + 7))
    for count in (4, 1, 3):
        for worker in workers:
            pool.check(worker, count)
    assert {psutil.Process(worker.pid).ppid() for worker in workers} == {pool.zygote.pid}


def test_every_worker_draws_its_own_random_numbers(pool: Pool) -> None:
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
        pool = Pool(tmp_path, preprocess=sums, postprocess=large)
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


def test_interrupts_and_terminations_of_the_group_are_the_pools_business(pool: Pool) -> None:
    worker = pool.ready()
    assert pool.zygote.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pool.zygote.pid, number)
        os.kill(worker.pid, number)
    pool.check(worker)
    pool.check(pool.ready())


# -- deaths of workers


@pytest.mark.parametrize(("item", "cause"), [("exit", "exit status 3"), ("segfault", "SIGSEGV")])
def test_what_a_worker_died_of(pool: Pool, item: str, cause: str) -> None:
    worker, other = pool.ready(), pool.ready()
    worker.send(RunBatch([0], [item]))
    assert await_death(worker) == []
    assert worker.cause_of_death() == cause
    worker.send(RunBatch([1], [1]))  # goes nowhere
    worker.end()
    worker.end()
    pool.check(other)
    pool.check(pool.ready())


def test_killing_one(pool: Pool) -> None:
    worker = pool.ready()
    pool.check(worker)
    worker.kill()
    assert await_death(worker) == []
    assert worker.cause_of_death() == "SIGKILL"
    worker.kill()  # it is dead already
    pool.check(pool.ready())


def test_killing_one_that_hangs_or_is_stopped(pool: Pool) -> None:
    hanging, stopped = pool.ready(), pool.ready()
    hanging.send(RunBatch([0], ["hang with the interpreter's lock"]))
    os.kill(stopped.pid, signal.SIGSTOP)
    for worker in (hanging, stopped):
        for _ in range(4):
            worker.send(RunBatch([1], [b"x" * (32 << 20)]))  # never waits
        worker.kill()
        await_death(worker)
        assert worker.cause_of_death() == "SIGKILL"


def test_what_was_answered_before_a_death_counts(pool: Pool) -> None:
    worker = pool.ready()
    worker.send(RunBatch([0], ["an error"]))
    worker.send(RunBatch([1], ["exit"]))
    said = await_death(worker)
    assert [type(message) for message in said] == [BatchDone]


def test_a_death_is_seen_though_the_workers_own_child_holds_the_pipe(pool: Pool) -> None:
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


def test_ending_one_in_the_middle_of_a_batch(pool: Pool) -> None:
    worker = pool.ready()
    process = os.pidfd_open(worker.pid)
    worker.send(RunBatch([0], ["hang with the interpreter's lock"]))
    worker.end()
    await_end(process, 0)


def test_old_kernels_have_no_descriptors_of_processes(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
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
        pool = Pool(tmp_path, postprocess=lambda outputs: Unpickles(int, "no number"))
        worker = pool.ready()
        worker.send(RunBatch([0], [np.zeros(SHAPE)]))
        answer = next_message(worker)
        assert isinstance(answer, Unreadable)
        assert isinstance(answer.error, ValueError)
        pool.close()


# -- deaths of the zygote


def test_a_zygote_that_dies_is_started_again_and_its_workers_live_on(pool: Pool) -> None:
    worker = pool.ready()
    first = pool.zygote.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    successor = pool.ready()
    assert pool.zygote.pid not in (None, first)
    pool.check(worker)
    pool.check(successor)
    worker.kill()
    await_death(worker)
    assert "unknown cause" in worker.cause_of_death()


def test_a_zygote_that_dies_between_a_request_and_its_answer(pool: Pool) -> None:
    pool.ready()
    assert pool.zygote.pid is not None
    os.kill(pool.zygote.pid, signal.SIGSTOP)
    asked = [pool.start(), pool.start()]
    os.kill(pool.zygote.pid, signal.SIGKILL)
    for worker in asked:
        assert isinstance(next_message(worker), Ready)
        pool.check(worker)


def test_a_zygote_that_dies_while_it_loads_is_started_a_few_times(tmp_path: pathlib.Path) -> None:
    with nothing_left_behind():
        pool = Pool(tmp_path, preprocess=Unpickles(os._exit, 7))
        worker, other = pool.start(), pool.start()
        assert await_death(worker) == []
        assert worker.cause_of_death() == "exit status 7"
        assert await_death(other) == []
        assert worker.pid is None
        worker.end()
        assert await_death(pool.start()) == []
        pool.close()


def test_a_net_that_cannot_be_loaded(tmp_path: pathlib.Path) -> None:
    with nothing_left_behind():
        pool = Pool(tmp_path)
        pool.close()
        (tmp_path / "tiny.prototxt").write_text("layer {")
        broken = Zygote(Settings(pool.model, pool.weights))
        worker = broken.start(0)
        (message,) = await_death(worker)
        assert isinstance(message, Failed)
        assert isinstance(message.error, ProtoError)
        worker.end()
        broken.close()


@pytest.mark.parametrize("length", [10, 1 << 20])
def test_a_function_that_does_not_unpickle(tmp_path: pathlib.Path, length: int) -> None:
    with nothing_left_behind():
        pool = Pool(tmp_path, preprocess=Unpickles(int, "x" * length))
        (message,) = await_death(pool.start())
        assert "xxxxxxxx" in str(message.error)
        pool.close()


def test_where_something_starts_threads_workers_are_fresh_processes(tmp_path: pathlib.Path) -> None:
    with nothing_left_behind():
        pool = Pool(tmp_path, preprocess=Unpickles(start_thread))
        workers = [pool.ready(), pool.ready()]
        for worker in workers:
            pool.check(worker)
            assert "worker import main" in " ".join(psutil.Process(worker.pid).cmdline())
        workers[0].kill()
        await_death(workers[0])
        assert workers[0].cause_of_death() == "SIGKILL"
        pool.close()


# -- deaths of the parent

PARENT = """
import sys, pathlib
from tests.workers import test_zygote as t
pool = t.Pool(pathlib.Path(sys.argv[1]))
workers = [pool.ready(), pool.ready()]
workers[0].send(t.RunBatch([0], ["hang with the interpreter's lock"]))
print(pool.zygote.pid, *[worker.pid for worker in workers], flush=True)
sys.stdin.read()
"""
PARENT_OF_A_LOADING_ZYGOTE = """
import sys, pathlib, os, select
from tests.workers import test_zygote as t
read, write = os.pipe()
pool = t.Pool(pathlib.Path(sys.argv[1]), preprocess=t.Unpickles(t.tell_and_hang, f"/proc/{os.getpid()}/fd/{write}"))
pool.start()
os.read(read, 1)
print(pool.zygote.pid, flush=True)
sys.stdin.read()
"""


def tell_and_hang(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"x")
    ctypes.PyDLL(None).sleep(1000)


@pytest.mark.parametrize("script", [PARENT, PARENT_OF_A_LOADING_ZYGOTE])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: pathlib.Path, script: str, number: int) -> None:
    """Not even a worker that hangs with the interpreter's lock, or a zygote that hangs while it loads the net."""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        processes = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert processes
        parent.send_signal(number)
        for process in processes:
            await_end(process, 5.0)  # a second, on a machine that has nothing else to do


def test_a_child_that_the_user_forks_keeps_nothing_alive(pool: Pool) -> None:
    worker = pool.ready()
    processes = [os.pidfd_open(pid) for pid in (worker.pid, pool.zygote.pid)]
    until, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(until, 1)
        os._exit(0)
    try:
        pool.close()
        for process in processes:
            await_end(process)
    finally:
        os.close(release)
        os.close(until)
        os.waitpid(child, 0)


def test_two_zygotes_side_by_side(pool: Pool, tmp_path: pathlib.Path) -> None:
    worker = pool.ready()
    (tmp_path / "other").mkdir()
    other = Pool(tmp_path / "other")
    other.check(other.ready())
    process = os.pidfd_open(worker.pid)
    worker.end()
    await_end(process, 0)
    other.check(other.workers[0])
    other.close()
    pool.check(pool.ready())
