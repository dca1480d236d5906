from __future__ import annotations

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pytest

from pycaffe import TEST, InputError, Net, Pool, PoolError, Result, WorkerDied
from pycaffe.errors import ItemTimeout
from pycaffe.workers import pool as pool_module
from tests.workers import faults
from tests.workers.forked_pool import await_end
from tests.workers.tiny_net import expected_scores, write_tiny_net

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []
    mine = psutil.Process().children(recursive=True)
    assert [child.cmdline() for child in mine if "resource_tracker" not in " ".join(child.cmdline())] == []


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


def pool(net: tuple[str, str], **arguments: Any) -> Pool:
    return Pool(*net, **{"workers": 2, "preprocess": faults.act, **arguments})


def pids(workers: Pool) -> list[int]:
    """The workers that are there."""
    return [worker.pid for worker in workers.stats().workers if worker.pid is not None]


def assert_right(net: tuple[str, str], results: list[Result], values: dict[int, float]) -> None:
    """The results with these indices are those of data filled with these values."""
    by_index = {result.index: result for result in results}
    assert len(by_index) == len(results)
    for index, value in values.items():
        outputs = by_index[index].outputs
        assert outputs is not None, by_index[index].error
        expected = expected_scores(net[1], net[0], faults.filled(value))
        np.testing.assert_allclose(outputs["score"], expected, rtol=1e-4, atol=1e-4)


def test_int8_is_calibrated_with_items_once_for_all_workers(net: tuple[str, str]) -> None:
    """The scores are those of an int8 net with these samples, not those of float32."""
    samples = [faults.filled(value) for value in range(-20, 20)]
    quantized = Net(net[0], TEST, weights=net[1], precision="int8", calibration=samples)
    float32 = Net(net[0], TEST, weights=net[1])
    with pool(net, precision="int8", calibration=range(-20, 20), batch_size=4) as workers:
        results = workers.map(range(12))
    for result in results:
        for each in (quantized, float32):
            each.blobs["data"].data[...] = faults.filled(result.item)
            each.forward()
        right, exact = quantized.blobs["score"].data[0], float32.blobs["score"].data[0]
        np.testing.assert_allclose(result.outputs["score"], right, rtol=1e-5, atol=1e-5)
        assert result.item == 0 or not np.allclose(right, exact, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"precision": "int8"}, "precision='int8' needs calibration=items: some 20 to 200 items"),
        ({"calibration": [1]}, "calibration belongs to precision='int8'. Got precision='float32'"),
        ({"precision": "float16"}, "Unknown precision 'float16'. Expected one of"),
    ],
)
def test_a_precision_that_cannot_be_is_refused_at_once(
    net: tuple[str, str], arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(InputError, match=text):
        pool(net, **arguments)


def test_reduced_precision_is_for_the_cpu(net: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "gpu_count", lambda: 1)
    with pytest.raises(InputError, match="precision='bfloat16' runs on engine='openvino' alone"):
        pool(net, workers=None, gpus=1, precision="bfloat16")


def test_a_calibration_item_that_cannot_be_read_raises(net: tuple[str, str]) -> None:
    with (
        Pool(*net, workers=1, precision="int8", calibration=["none.png"]) as workers,
        pytest.raises(InputError, match=r"Could not open or find file 'none\.png'"),
    ):
        workers.map([1])


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


@pytest.mark.parametrize("batch_size", [1, 4])
def test_items_that_do_not_pickle_or_unpickle_are_errors_and_nothing_else_is_touched(
    net: tuple[str, str], batch_size: int
) -> None:
    bad = {
        8: (("raise", "unpicklable"), PoolError, "UnpicklableError: halfhalf"),
        17: (faults.UnpicklesBadly(), LookupError, "no such thing here"),
        20: ((threading.Lock(), "does not pickle"), TypeError, "cannot pickle"),
    }
    items = [bad[index][0] if index in bad else index for index in range(30)]
    with pool(net, batch_size=batch_size) as workers:
        results = workers.map(items)
    for index, (item, kind, text) in bad.items():
        assert isinstance(results[index].error, kind)
        assert text in str(results[index].error)
        assert results[index].item is item
    assert_right(net, results, {index: index for index in range(30) if index not in bad})


def test_a_result_that_does_not_pickle_is_its_items_error(net: tuple[str, str]) -> None:
    def with_lock(outputs: dict[str, npt.NDArray[np.float32]]) -> object:
        value = int(outputs["data"][0, 0, 0])
        return threading.Lock() if value == 5 else value

    with pool(net, outputs=["data"], postprocess=with_lock, batch_size=4) as workers:
        results = workers.map(range(9))
    assert "cannot pickle" in str(results[5].error)
    assert [result.outputs for result in results if result.index != 5] == [0, 1, 2, 3, 4, 6, 7, 8]


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
    assert f"died with {cause} while running this item alone" in str(results[6].error)
    assert results[6].attempts == 2
    assert_right(net, results, {index: index for index in range(20) if index != 6})
    assert {result.attempts for result in results if result.index != 6} == {1}


def test_an_item_that_survives_the_next_attempt_has_its_outputs(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    with pool(net, workers=1) as workers:
        results = workers.map([1, ("die once", str(tmp_path / "died"), 2), 3])
    assert_right(net, results, {0: 1, 1: 2, 2: 3})
    assert [result.attempts for result in results] == [1, 2, 1]


def test_an_item_that_hangs_costs_its_time_and_its_worker_and_nothing_else(
    net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    for batch_size in (1, 4):
        marker = tmp_path / f"hangs {batch_size}"
        items = [("hang", str(marker)) if index == 6 else index for index in range(20)]
        with pool(net, batch_size=batch_size, item_timeout=0.5) as workers:
            results = workers.map(items)
        assert isinstance(results[6].error, ItemTimeout)
        assert "took longer than 0.5 s" in str(results[6].error)
        assert results[6].attempts == 1
        assert_right(net, results, {index: index for index in range(20) if index != 6})
        assert not psutil.pid_exists(int(marker.read_text(encoding="utf-8")))


def test_a_worker_that_is_stopped_is_given_up_too(net: tuple[str, str]) -> None:
    """It does not even read its pipe; the items are larger than that."""
    items = [{"data": faults.filled(index), "padding": bytes(1 << 20)} for index in range(12)]
    with Pool(*net, workers=2, batch_size=1, item_timeout=1.0, preprocess=lambda item: item["data"]) as workers:
        results = []
        for result in workers.imap_unordered(items):
            results.append(result)
            if len(results) == 1:
                os.kill(next(w.pid for w in workers.stats().workers if w.pid), signal.SIGSTOP)
        timeouts = [result for result in results if result.error is not None]
        assert len(timeouts) <= 1
        assert_right(net, results, {r.index: r.index for r in results if r.error is None})
    assert len(results) == 12


def test_workers_that_are_killed_from_outside_are_replaced(net: tuple[str, str]) -> None:
    with pool(net, retries=5) as workers:
        results = []
        for result in workers.imap_unordered(range(60)):
            results.append(result)
            if result.index in (10, 30):
                os.kill(pids(workers)[0], signal.SIGKILL)
        assert_right(net, results, {index: index for index in range(60)})
        # Killed while nobody looks.
        for pid in pids(workers):
            os.kill(pid, signal.SIGKILL)
        assert_right(net, workers.map([7]), {0: 7})
        assert sum(worker.restarts for worker in workers.stats().workers) >= 3


def test_workers_are_replaced_after_so_many_items(net: tuple[str, str]) -> None:
    def who(outputs: object) -> int:
        return os.getpid()

    with pool(net, max_items_per_worker=10, batch_size=4, postprocess=who) as workers:
        found = Counter(result.outputs for result in workers.map(range(100)))
    assert max(found.values()) <= 10
    assert len(found) >= 10


class DiesWhereItIsUnpickled:
    def __reduce__(self) -> Any:
        return os._exit, (9,)


def test_workers_that_die_at_their_start_raise(net: tuple[str, str]) -> None:
    with (
        pool(net, preprocess=DiesWhereItIsUnpickled(), retries=1) as workers,
        pytest.raises(WorkerDied, match=r"died with .*exit status 9.* while loading the net"),
    ):
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


def test_memory_in_stats_is_that_of_each_worker(net: tuple[str, str]) -> None:
    with pool(net) as workers:
        list(workers.imap_unordered(range(50)))
        stats = workers.stats()
        for worker in stats.workers:
            if worker.state == "idle":
                assert worker.own_memory == pytest.approx(psutil.Process(worker.pid).memory_full_info().uss, rel=0.05)


def test_workers_end_when_their_parent_is_killed(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    """One worker is idle, the other in the middle of an item."""
    code = (
        "import sys; from pycaffe import Pool; from tests.workers import faults\n"
        "if __name__ == '__main__':\n"
        "    with Pool(*sys.argv[1:3], workers=2, preprocess=faults.act) as pool:\n"
        "        for result in pool.imap_unordered([1, 2, 3, 4, ('hang', sys.argv[3])]): pass\n"
    )
    script, pipe = tmp_path / "script.py", tmp_path / "hangs"
    script.write_text(code, encoding="utf-8")
    os.mkfifo(pipe)
    parent = subprocess.Popen([sys.executable, script, *net, pipe], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert pipe.read_text(encoding="utf-8")
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) == 3, "the zygote and two workers"
    processes = [os.pidfd_open(child.pid) for child in children]
    parent.kill()
    for process in processes:
        await_end(process, 1.0)
    parent.wait()
