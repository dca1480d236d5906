from __future__ import annotations

import ctypes
import re
from typing import Any

import pytest

import pycaffe.cli
from pycaffe import devices
from pycaffe.cli import _cuda_driver


class Driver:
    """Answers as libcuda does: every attribute is 100 times its number."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = index
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = f"NVIDIA X{device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, total: Any, device: ctypes.c_int) -> int:
        total._obj.value = 85 * 10**9
        return 0

    def cuDeviceGetAttribute(self, value: Any, number: int, device: ctypes.c_int) -> int:
        value._obj.value = 0 if number == 17 else 100 * number
        return 0


def query(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[Any, list[str]]:
    with pytest.raises(SystemExit) as end:
        pycaffe.cli.main(["device_query", *words])
    printed = capsys.readouterr()
    assert printed.out == ""
    return end.value.code, [re.sub(r"^I\d{4} \S+ +\d+ ", "", line) for line in printed.err.splitlines()]


def test_the_originals_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 3)
    monkeypatch.setattr(_cuda_driver, "_driver", Driver)
    status, lines = query(capsys, "-gpu", "2")
    assert status == 0
    assert lines == [
        "caffe.cpp:138] Querying GPUs 2",
        "common.cpp:178] Device id:                     2",
        "common.cpp:179] Major revision number:         7500",
        "common.cpp:180] Minor revision number:         7600",
        "common.cpp:181] Name:                          NVIDIA X2",
        "common.cpp:182] Total global memory:           85000000000",
        "common.cpp:183] Total shared memory per block: 800",
        "common.cpp:184] Total registers per block:     1200",
        "common.cpp:185] Warp size:                     1000",
        "common.cpp:186] Maximum memory pitch:          1100",
        "common.cpp:187] Maximum threads per block:     100",
        "common.cpp:188] Maximum dimension of block:    200, 300, 400",
        "common.cpp:191] Maximum dimension of grid:     500, 600, 700",
        "common.cpp:194] Clock rate:                    1300",
        "common.cpp:195] Total constant memory:         900",
        "common.cpp:196] Texture alignment:             1400",
        "common.cpp:197] Concurrent copy and execution: Yes",
        "common.cpp:199] Number of multiprocessors:     1600",
        "common.cpp:200] Kernel execution timeout:      No",
    ]
    assert [line[16:] for line in query(capsys)[1] if "Device id" in line] == [
        f"Device id:                     {index}" for index in range(3)
    ]


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    status, lines = query(capsys)
    assert status == 0
    assert [line.partition("] ")[2] for line in lines] == ["Querying GPUs all", "No cuda device present."]
    status, lines = query(capsys, "--gpu", "0")
    assert status == 2
    assert "Device 'cuda:0' is not there" in lines[-1]


def test_a_driver_that_is_missing_or_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)
    monkeypatch.setattr(_cuda_driver, "_driver", lambda: Driver(999))
    status, lines = query(capsys)
    assert (status, "NVIDIA's driver refused, with CUDA error 999" in lines[-1]) == (2, True)
    monkeypatch.undo()
    monkeypatch.setattr(devices, "gpu_count", lambda: 1)

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    status, lines = query(capsys)
    assert (status, "NVIDIA's driver was not found" in lines[-1]) == (2, True)
