"""Workers on GPUs: fake devices, real processes and deaths."""

from __future__ import annotations

import pathlib
from collections import Counter
from typing import Any

import numpy as np
import pytest

from pycaffe import DeviceError, Pool, Result, WorkerDied
from pycaffe.workers import pool as pool_module
from tests.workers import faults
from tests.workers.fake_gpu import OnFakeGpus, who
from tests.workers.tiny_net import expected_scores, write_tiny_net


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "gpu_count", lambda: 2)


def gpu_pool(net: tuple[str, str], **settings: Any) -> Pool:
    return Pool(*net, **{"preprocess": OnFakeGpus(), "postprocess": who, "batch_size": 4, **settings})


def assert_right(net: tuple[str, str], result: Result, value: float) -> None:
    assert result.error is None, result
    np.testing.assert_allclose(
        result.outputs[1], expected_scores(net[1], net[0], faults.filled(value)), rtol=1e-4, atol=1e-4
    )


def test_one_process_each_and_items_go_to_whoever_asks(net: tuple[str, str]) -> None:
    """203 items and 2 devices: a split into len // 2 would lose one, or wait for the device that is slow."""
    with gpu_pool(net, gpus=2) as workers:
        while any(worker.state == "starting" for worker in workers.stats().workers):
            workers.submit(0).result()
        results = workers.map(range(203))
        stats = workers.stats()
    assert [result.index for result in results] == list(range(203))
    for result in results:
        assert_right(net, result, result.index)
    done = Counter(result.worker for result in results)
    assert done[0] > 1.5 * done[1] > 0, "cuda:1 is slow"
    assert [worker.device for worker in stats.workers] == ["cuda:0", "cuda:1"]
    assert len({worker.pid for worker in stats.workers}) == 2


def test_a_death_with_two_batches_at_work_costs_only_the_item_that_it_is_due_to(net: tuple[str, str]) -> None:
    items: list[Any] = [("segfault",) if index == 21 else index for index in range(60)]
    with gpu_pool(net, gpus=1, batch_size=2, retries=0) as workers:
        results = workers.map(items)
    assert isinstance(results[21].error, WorkerDied)
    assert "SIGSEGV while running this item alone (attempt 1 of 1)" in str(results[21].error)
    for result in results[:21] + results[22:]:
        assert_right(net, result, result.index)
        assert result.attempts == 1


def test_items_that_fail_or_hang_while_another_batch_runs(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    bad = {7: ("raise", "plain"), 30: ("hang", str(tmp_path / "hangs"))}
    with gpu_pool(net, gpus=1, batch_size=2, item_timeout=1.0) as workers:
        results = workers.map([bad.get(index, index) for index in range(60)])
    assert str(results[7].error) == "no good"
    assert "took longer than 1.0 s" in str(results[30].error)
    for result in results:
        if result.index not in bad:
            assert_right(net, result, result.index)


def test_without_cuda_the_pool_says_so(net: tuple[str, str]) -> None:
    with Pool(*net, devices=["cuda:0"]) as workers, pytest.raises(DeviceError, match="'cuda:0'"):
        workers.map([1])
