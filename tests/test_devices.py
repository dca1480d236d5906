from __future__ import annotations

import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from pycaffe import devices
from pycaffe.errors import DeviceError
from pycaffe.proto.prototxt import read_solver


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("_mode_gpu", False), ("_device", 0), ("_warned", False)):
        monkeypatch.setattr(devices, name, value)
    monkeypatch.delenv("PYCAFFE_REQUIRE_GPU", raising=False)
    yield


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: count)


def test_without_a_gpu_the_switches_warn_once_and_use_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    with pytest.warns(RuntimeWarning, match=r"set_device\(1\): GPU 1 is not there \(0 found\); running on the CPU"):
        devices.set_device(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        devices.set_mode_gpu()
        devices.set_device(0)
        devices.set_mode_gpu()
    assert devices.default_device() == "cpu"


def test_the_warning_names_the_users_line(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    with pytest.warns(RuntimeWarning) as caught:
        devices.set_mode_gpu()
    assert caught[0].filename == __file__


def test_require_gpu_makes_it_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    monkeypatch.setenv("PYCAFFE_REQUIRE_GPU", "1")
    with pytest.raises(DeviceError, match=r"set_mode_gpu\(\): GPU 0 is not there.*PYCAFFE_REQUIRE_GPU=1"):
        devices.set_mode_gpu()
    with pytest.raises(DeviceError, match=r"set_device\(2\)"):
        devices.set_device(2)


def test_with_gpus_the_switches_choose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    devices.set_device(1)
    assert devices.default_device() == "cpu"
    devices.set_mode_gpu()
    assert devices.default_device() == "cuda:1"
    devices.set_mode_cpu()
    assert devices.default_device() == "cpu"
    with pytest.warns(RuntimeWarning, match=r"set_device\(-1\): GPU -1 is not there \(2 found\)"):
        devices.set_device(-1)
    devices.set_mode_gpu()
    assert devices.default_device() == "cuda:1"


@pytest.mark.parametrize(("name", "want"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")])
def test_devices_named_outright(monkeypatch: pytest.MonkeyPatch, name: str, want: str) -> None:
    gpus(monkeypatch, 2)
    assert devices.check_device(name) == want


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2)
    with pytest.raises(DeviceError, match=r"Device 'cuda:2' is not there: this machine has 2 GPU\(s\)"):
        devices.check_device("cuda:2")
    for name in ("gpu", "cuda:", "cuda:-1", "CPU", ""):
        with pytest.raises(DeviceError, match=f"Unknown device '{name}'. Expected 'cpu' or 'cuda:N'"):
            devices.check_device(name)


class _Management:
    def __init__(self, count: int) -> None:
        self.count = count

    def nvmlInit_v2(self) -> int:
        return 0

    def nvmlDeviceGetCount_v2(self, reference) -> int:
        reference._obj.value = self.count
        return 0


@pytest.mark.parametrize(("visible", "want"), [(None, 4), ("", 0), ("0,2", 2), ("0,1,2,3,4,5", 4)])
def test_gpu_count_heeds_the_visible_ones(monkeypatch: pytest.MonkeyPatch, visible: str | None, want: int) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda name: _Management(4))
    assert devices.gpu_count.__wrapped__() == want


def test_gpu_count_without_a_driver_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(devices.ctypes, "CDLL", missing)
    assert devices.gpu_count.__wrapped__() == 0


def solver(tmp_path: pathlib.Path, text: str) -> Any:
    path = tmp_path / "solver.prototxt"
    path.write_text('net: "net.prototxt" base_lr: 0.01 lr_policy: "fixed"\n' + text)
    return read_solver(path)


def test_a_solver_that_asks_for_a_gpu_gets_it_or_the_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    gpus(monkeypatch, 2)
    devices.set_mode_by_solver(solver(tmp_path, "solver_mode: GPU device_id: 1"))
    assert devices.default_device() == "cuda:1"
    devices.set_mode_by_solver(solver(tmp_path, ""))  # states no mode
    assert devices.default_device() == "cuda:1"
    devices.set_mode_by_solver(solver(tmp_path, "solver_mode: CPU"))
    assert devices.default_device() == "cpu"
    gpus(monkeypatch, 0)
    with pytest.warns(RuntimeWarning, match=r"solver_mode: GPU: GPU 0 is not there \(0 found\); running on the CPU"):
        devices.set_mode_by_solver(solver(tmp_path, "solver_mode: GPU"))
    assert devices.default_device() == "cpu"
    monkeypatch.setenv("PYCAFFE_REQUIRE_GPU", "1")
    with pytest.raises(DeviceError, match="solver_mode: GPU"):
        devices.set_mode_by_solver(solver(tmp_path, "solver_mode: GPU"))
