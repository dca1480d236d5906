from __future__ import annotations

import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import pycaffe
from pycaffe import InputError, Pool, PoolError, ProtoError, Result, WeightsError, WorkerDied
from tests.workers import faults
from tests.workers.tiny_net import expected_scores, write_tiny_net

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    mine = psutil.Process().children(recursive=True)
    assert [child.cmdline() for child in mine if "resource_tracker" not in " ".join(child.cmdline())] == []


def is_alive(process: psutil.Process) -> bool:
    """Orphans stay zombies where process 1 does not reap."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


def pool(net: tuple[str, str], **arguments: Any) -> Pool:
    return Pool(*net, **{"workers": 2, "preprocess": faults.act, **arguments})


def assert_right(net: tuple[str, str], results: list[Result], values: dict[int, float]) -> None:
    """The results with these indices are those of data filled with these values."""
    by_index = {result.index: result for result in results}
    assert len(by_index) == len(results)
    for index, value in values.items():
        outputs = by_index[index].outputs
        assert outputs is not None, by_index[index].error
        expected = expected_scores(net[1], net[0], faults.filled(value))
        np.testing.assert_allclose(outputs["score"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_item_has_one_result(net: tuple[str, str], batch_size: int) -> None:
    with pool(net, batch_size=batch_size) as workers:
        results = list(workers.imap_unordered(range(50)))
    assert sorted(result.index for result in results) == list(range(50))
    assert all(result.item == result.index for result in results)
    assert {result.attempts for result in results} == {1}
    assert {result.worker for result in results} <= {0, 1}
    assert min(result.seconds for result in results) > 0
    assert_right(net, results, {index: index for index in range(50)})


def test_a_pool_takes_one_job_after_another_in_order_if_asked(net: tuple[str, str]) -> None:
    with pool(net) as workers:
        assert [result.item for result in workers.imap(range(40))] == list(range(40))
        assert [result.item for result in workers.map([5, 3, 4])] == [5, 3, 4]
        assert workers.map([]) == []


@pytest.mark.parametrize("method", ["imap", "imap_unordered"])
def test_input_is_read_as_it_is_needed_and_may_be_endless(net: tuple[str, str], method: str) -> None:
    read = 0

    def numbers() -> Iterator[int]:
        nonlocal read
        while True:
            yield read
            read += 1

    with pool(net, batch_size=3) as workers:
        seen = [result.index for result in itertools.islice(getattr(workers, method)(numbers()), 100)]
        assert len(set(seen)) == 100
        assert 100 <= read < 200
        # The job was left in the middle; the next one has nothing of it.
        assert [result.item for result in workers.imap(["none", 2])] == ["none", 2]


def test_a_slow_input_does_not_hold_back_results(net: tuple[str, str]) -> None:
    has_result = False
    saw_result = False

    def slow() -> Iterator[int]:
        nonlocal saw_result
        for item in range(128):  # as many as one worker has room for
            if has_result:
                saw_result = True
                return
            yield item
            time.sleep(0.02)

    with pool(net, workers=1, batch_size=64) as workers:
        list(workers.imap_unordered([0]))  # it is up
        for _ in workers.imap_unordered(slow()):
            has_result = True
    assert saw_result


def test_an_input_that_raises_raises_and_the_pool_goes_on(net: tuple[str, str]) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the list ends here")

    with pool(net) as workers:
        with pytest.raises(OSError, match="the list ends here"):
            workers.map(broken())
        assert_right(net, workers.map([2]), {0: 2})


@pytest.mark.parametrize("batch_size", [1, 4])
def test_items_that_raise_are_errors_and_nothing_else_is_touched(net: tuple[str, str], batch_size: int) -> None:
    bad = {
        3: (("raise", "plain"), ValueError, "no good"),
        8: (("raise", "unpicklable"), PoolError, "UnpicklableError: halfhalf"),
        11: (("sys.exit", 3), PoolError, "SystemExit: 3"),
        17: (faults.UnpicklesBadly(), LookupError, "no such thing here"),
        20: ((threading.Lock(), "does not pickle"), TypeError, "cannot pickle"),
        21: (("shape", 2, 2), pycaffe.ShapeError, "Input size incompatible"),
    }
    items = [bad[index][0] if index in bad else index for index in range(30)]
    with pool(net, batch_size=batch_size) as workers:
        results = workers.map(items)
    for index, (item, kind, text) in bad.items():
        assert isinstance(results[index].error, kind)
        assert text in str(results[index].error)
        assert results[index].outputs is None
        assert results[index].item is item
    assert_right(net, results, {index: index for index in range(30) if index not in bad})


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize(
    ("guilty", "cause"), [(("kill",), "SIGKILL"), (("segfault",), "SIGSEGV"), (("os._exit", 5), "exit status 5")]
)
def test_an_item_that_kills_its_worker_is_given_up_and_costs_no_other(
    net: tuple[str, str], batch_size: int, guilty: Any, cause: str
) -> None:
    items = [guilty if index == 6 else index for index in range(20)]
    with pool(net, batch_size=batch_size, retries=1) as workers:
        results = workers.map(items)
    assert isinstance(results[6].error, WorkerDied)
    assert f"died with {cause} while running item 6 alone" in str(results[6].error)
    assert results[6].attempts == 2
    assert_right(net, results, {index: index for index in range(20) if index != 6})
    assert {result.attempts for result in results if result.index != 6} == {1}


def test_an_item_that_survives_the_next_attempt_has_its_outputs(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    with pool(net, workers=1) as workers:
        results = workers.map([1, ("die once", str(tmp_path / "died"), 2), 3])
    assert_right(net, results, {0: 1, 1: 2, 2: 3})
    assert [result.attempts for result in results] == [1, 2, 1]


def test_workers_that_are_killed_from_outside_are_replaced(net: tuple[str, str]) -> None:
    with pool(net, retries=5) as workers:
        results = []
        for result in workers.imap_unordered(range(60)):
            results.append(result)
            if result.index in (10, 30):
                pid = workers._workers[result.worker].process.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
        assert_right(net, results, {index: index for index in range(60)})
        # Killed while nobody looks.
        for worker in workers._workers.values():
            worker.process.kill()
            worker.process.join()
        assert_right(net, workers.map([7]), {0: 7})


def test_a_net_that_cannot_be_loaded_raises_once_in_the_parent(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    bad_model, bad_weights = tmp_path / "bad.prototxt", tmp_path / "bad.caffemodel"
    bad_model.write_text('layer { name: "a" type: Input }', encoding="utf-8")
    bad_weights.write_bytes(b"\xff" * 99)
    for files, error in (((str(bad_model), net[1]), ProtoError), ((net[0], str(bad_weights)), WeightsError)):
        with pool(files) as workers:
            with pytest.raises(error, match=r"bad\."):
                workers.map([1])
            with pytest.raises(PoolError, match="The pool is closed"):
                workers.map([1])


class DiesWhereItIsUnpickled:
    def __reduce__(self) -> Any:
        return os._exit, (9,)


def test_workers_that_die_at_their_start_raise(net: tuple[str, str]) -> None:
    with (
        pool(net, preprocess=DiesWhereItIsUnpickled(), retries=1) as workers,
        pytest.raises(WorkerDied, match="died with exit status 9 while loading the net"),
    ):
        workers.map([1])


def test_arguments_that_make_no_sense(net: tuple[str, str]) -> None:
    for arguments, text in (
        ({"workers": 0}, "workers is at least 1, not 0"),
        ({"batch_size": 0}, "batch_size is at least 1, not 0"),
        ({"retries": -1}, "retries is at least 0, not -1"),
        ({"preprocess": lambda item: item}, "does not pickle"),
    ):
        with pytest.raises(InputError, match=text):
            pool(net, **arguments)


def test_one_job_at_a_time_and_none_when_closed(net: tuple[str, str]) -> None:
    with pool(net) as workers:
        first = workers.imap_unordered(range(9))
        next(first)
        with pytest.raises(PoolError, match="at work on another job"):
            workers.map([1])
        assert len(list(first)) == 8
    workers.close()
    with pytest.raises(PoolError, match="closed"):
        workers.map([1])


def test_libraries_in_a_worker_take_one_thread_and_the_parents_environment_stays(net: tuple[str, str]) -> None:
    before = dict(os.environ)
    with pool(net, workers=1, outputs=["data"]) as workers:
        (result,) = workers.map([("environment",)])
    assert result.outputs is not None
    assert result.outputs["data"].max() == 1
    assert dict(os.environ) == before


def test_large_items_and_large_outputs_at_once_do_not_lock_up(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    model = tmp_path / "large.prototxt"
    shape = "dim: 1 dim: 3 dim: 400 dim: 500"
    model.write_text(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}'
        'layer { name: "double" type: "Power" bottom: "data" top: "double" power_param { scale: 2 } }',
        encoding="utf-8",
    )
    items = ({"data": np.full((3, 400, 500), index, np.float32)} for index in range(12))
    with Pool(str(model), workers=2, batch_size=2) as workers:
        for result in workers.imap_unordered(items):
            assert result.outputs is not None
            assert result.outputs["double"].shape == (3, 400, 500)
            assert float(result.outputs["double"][2, 399, 499]) == 2 * result.index


def test_worker_memory_is_that_of_each_worker(net: tuple[str, str]) -> None:
    with pool(net) as workers:
        workers.map(range(4))
        memory = workers.worker_memory()
        uss = [psutil.Process(worker.process.pid).memory_full_info().uss for worker in workers._workers.values()]
    assert memory == pytest.approx(uss, rel=0.05)


def test_workers_end_when_their_parent_is_killed(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    """One worker is idle, the other in the middle of an item."""
    code = (
        "import sys; from pycaffe import Pool; from tests.workers import faults\n"
        "if __name__ == '__main__':\n"
        "    with Pool(*sys.argv[1:3], workers=2, preprocess=faults.act) as pool:\n"
        "        for result in pool.imap_unordered([1, 2, 3, 4, ('hang', sys.argv[3])]): pass\n"
    )
    script, marker = tmp_path / "script.py", tmp_path / "hangs"
    script.write_text(code, encoding="utf-8")
    parent = subprocess.Popen([sys.executable, script, *net, marker], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while not (marker.exists() and marker.read_text(encoding="utf-8")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 1
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)
