from __future__ import annotations

from typing import Any

import pytest

from pycaffe.errors import DeviceError, InputError
from pycaffe.workers.placement import place


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ["cpu"] * 6),
        ({"workers": 2}, ["cpu", "cpu"]),
        ({"devices": "cpu"}, ["cpu"]),
        ({"devices": ["cpu"], "workers": 3}, ["cpu"] * 3),
        ({"devices": ["cuda:2", "cuda"]}, ["cuda:2", "cuda:0"]),
        ({"devices": [0, 1]}, ["cuda:0", "cuda:1"]),
        ({"devices": ["cuda:1", "cpu"]}, ["cuda:1", "cpu"]),
        ({"devices": "all"}, ["cuda:0", "cuda:1", "cuda:2"]),
        ({"gpus": 2}, ["cuda:0", "cuda:1"]),
        ({"gpus": 2, "workers": 5}, ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]),
    ],
)
def test_each_worker_has_a_device(arguments: dict[str, Any], expected: list[str]) -> None:
    given: dict[str, Any] = {"workers": None, "devices": None, "gpus": None, **arguments}
    assert place(**given, cores=6, gpus_there=3) == expected


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"devices": ["cuda:3"]}, DeviceError, "Device 'cuda:3' is not there: this machine has 3 GPU"),
        ({"devices": [-1]}, DeviceError, "Unknown device -1. Expected 'cpu' or 'cuda:N'"),
        ({"devices": "gpu"}, DeviceError, "Unknown device 'gpu'"),
        ({"gpus": 4}, DeviceError, "Device 'cuda:3' is not there"),
        ({"gpus": 0}, InputError, "gpus is at least 1, not 0"),
        ({"devices": []}, InputError, "devices is empty"),
        ({"devices": "all", "gpus": 1}, InputError, "Give devices or gpus, not both"),
        ({"devices": [0, 1], "workers": 1}, InputError, "workers=1 is less than the 2 devices"),
        ({"workers": 0}, InputError, "workers is at least 1, not 0"),
    ],
)
def test_what_makes_no_sense(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    given: dict[str, Any] = {"workers": None, "devices": None, "gpus": None, **arguments}
    with pytest.raises(error, match=text):
        place(**given, cores=6, gpus_there=3)


def test_all_devices_of_a_machine_without_any() -> None:
    with pytest.raises(DeviceError, match="devices='all': this machine has no GPU"):
        place(None, "all", None, cores=2, gpus_there=0)
