"""The zygote: what it shares, and its own and its parent's deaths, which are real."""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from pycaffe.errors import ProtoError
from pycaffe.net import Net
from pycaffe.workers.forked import Zygote
from pycaffe.workers.memory import memory_of
from pycaffe.workers.messages import Failed, Ready, RunBatch, Settings
from pycaffe.workers.zygote import Forked
from tests.workers.forked_pool import (
    ForkedPool,
    Unpickles,
    await_death,
    await_end,
    next_message,
    nothing_left_behind,
    start_thread,
)
from tests.workers.tiny_net import SHAPE


@pytest.fixture
def pool(tmp_path: pathlib.Path) -> Iterator[ForkedPool]:
    with nothing_left_behind():
        made = ForkedPool(tmp_path, batch_size=4)
        yield made
        made.close()


LARGE = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }
layer { name: "fc1" type: "InnerProduct" bottom: "data" top: "fc1" inner_product_param { num_output: 8192 } }
layer { name: "fc2" type: "InnerProduct" bottom: "fc1" top: "fc2" inner_product_param { num_output: 4096 } }
layer { name: "fc3" type: "InnerProduct" bottom: "fc2" top: "fc3" inner_product_param { num_output: 7 } }
"""


@pytest.mark.parametrize("batch_size", [1, 4])
def test_weights_are_there_once(tmp_path: pathlib.Path, batch_size: int) -> None:
    """136 MB of them: mapped or packed, never both, and in no worker's own memory, whatever blobs are asked for."""
    (tmp_path / "large.prototxt").write_text(LARGE)
    Net(tmp_path / "large.prototxt").save(tmp_path / "large.caffemodel")
    weights = (tmp_path / "large.caffemodel").stat().st_size
    pool = ForkedPool(tmp_path)
    pool.zygote.close()
    settings = Settings(
        str(tmp_path / "large.prototxt"),
        str(tmp_path / "large.caffemodel"),
        outputs=("fc1", "fc3"),
        batch_size=batch_size,
    )
    pool.zygote = Zygote(settings)
    workers = [pool.start(), pool.start()]
    for worker in workers:
        next_message(worker)
    for count in (batch_size, 1, batch_size):
        for worker in workers:
            worker.send(RunBatch(list(range(count)), [{"data": np.ones(SHAPE, np.float32)}] * count))
            assert len(list(next_message(worker).items())) == count
    memories = [memory_of(pid) for pid in (pool.zygote.pid, *(worker.pid for worker in workers))]
    pool.close()
    assert max(memory.own for memory in memories) < 0.2 * weights
    assert sum(memory.share for memory in memories) < 1.6 * weights


# -- deaths of the zygote


def test_a_zygote_that_dies_is_started_again_and_its_workers_live_on(pool: ForkedPool) -> None:
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


def test_a_zygote_that_dies_between_a_request_and_its_answer(pool: ForkedPool) -> None:
    pool.ready()
    assert pool.zygote.pid is not None
    os.kill(pool.zygote.pid, signal.SIGSTOP)
    asked = [pool.start(), pool.start()]
    os.kill(pool.zygote.pid, signal.SIGKILL)
    for worker in asked:
        assert isinstance(next_message(worker), Ready)
        pool.check(worker)


def test_a_zygote_that_dies_before_it_tells_of_a_worker_that_is_there(
    pool: ForkedPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Zygote._take

    def lose(self: Zygote, report: object, descriptors: list[int]) -> None:
        if not isinstance(report, Forked):
            take(self, report, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    monkeypatch.setattr(Zygote, "_take", lose)
    worker = pool.ready()
    monkeypatch.undo()
    assert pool.zygote.pid is not None
    os.kill(pool.zygote.pid, signal.SIGKILL)
    pool.check(pool.ready())
    pool.check(worker)
    worker.kill()
    await_death(worker)


def test_a_zygote_that_dies_while_it_loads_is_started_a_few_times(tmp_path: pathlib.Path) -> None:
    with nothing_left_behind():
        pool = ForkedPool(tmp_path, preprocess=Unpickles(os._exit, 7))
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
        pool = ForkedPool(tmp_path)
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
        pool = ForkedPool(tmp_path, preprocess=Unpickles(int, "x" * length))
        (message,) = await_death(pool.start())
        assert "xxxxxxxx" in str(message.error)
        pool.close()


def test_where_something_starts_threads_workers_are_fresh_processes(tmp_path: pathlib.Path) -> None:
    with nothing_left_behind():
        pool = ForkedPool(tmp_path, preprocess=Unpickles(start_thread))
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
import os, pathlib, signal, sys
from tests.workers import forked_pool as t
pool = t.ForkedPool(pathlib.Path(sys.argv[1]))
workers = [pool.ready(), pool.ready()]
workers[0].send(t.RunBatch([0], ["hang with the interpreter's lock"]))
processes = [pool.zygote.pid, *[worker.pid for worker in workers]]
"""
TELL = """
print(*processes, flush=True)
sys.stdin.read()
"""
STOPPED = "for process in processes: os.kill(process, signal.SIGSTOP)"
WITHOUT_A_ZYGOTE = "os.kill(processes.pop(0), signal.SIGKILL)"
PARENT_OF_A_LOADING_ZYGOTE = """
import sys, pathlib, os
from tests.workers import forked_pool as t
from tests.workers.test_zygote import tell_and_hang
read, write = os.pipe()
pool = t.ForkedPool(pathlib.Path(sys.argv[1]), preprocess=t.Unpickles(tell_and_hang, f"/proc/{os.getpid()}/fd/{write}"))
pool.start()
os.read(read, 1)
processes = [pool.zygote.pid]
"""


def tell_and_hang(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"x")
    ctypes.PyDLL(None).sleep(1000)


@pytest.mark.parametrize(
    ("script", "number"),
    [
        (PARENT, signal.SIGKILL),
        (PARENT, signal.SIGSEGV),
        (PARENT + STOPPED, signal.SIGKILL),
        (PARENT + WITHOUT_A_ZYGOTE, signal.SIGKILL),
        (PARENT_OF_A_LOADING_ZYGOTE, signal.SIGKILL),
    ],
    ids=["SIGKILL", "SIGSEGV", "all of them stopped", "the zygote dead", "the zygote loading"],
)
def test_nothing_outlives_a_parent_that_is_killed(tmp_path: pathlib.Path, script: str, number: int) -> None:
    """Within a second, not even a worker that hangs with the interpreter's lock, or a zygote while it loads the net."""
    command = [sys.executable, "-c", script + TELL, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        processes = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
        assert processes
        parent.send_signal(number)
        for process in processes:
            await_end(process, 1.0)


def test_a_child_that_the_user_forks_keeps_nothing_alive(pool: ForkedPool) -> None:
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


def test_two_zygotes_side_by_side(pool: ForkedPool, tmp_path: pathlib.Path) -> None:
    worker = pool.ready()
    (tmp_path / "other").mkdir()
    other = ForkedPool(tmp_path / "other")
    other.check(other.ready())
    process = os.pidfd_open(worker.pid)
    worker.end()
    await_end(process, 0)
    other.check(other.workers[0])
    other.close()
    pool.check(pool.ready())
