from __future__ import annotations

import pytest
from click import BadParameter

from pycaffe import devices
from pycaffe.cli._caffe_cpp import first_device, gpus_of, stages_of
from pycaffe.errors import DeviceError


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 4)


@pytest.mark.usefixtures("four_gpus")
def test_the_forms_of_gpu() -> None:
    assert [gpus_of(text) for text in ("", "1", "2, 0", "all")] == [[], [1], [2, 0], [0, 1, 2, 3]]
    assert [first_device(text) for text in ("", "1", "2,0", "all")] == ["cpu", "cuda:1", "cuda:2", "cuda:0"]


@pytest.mark.usefixtures("four_gpus")
def test_what_names_no_gpus() -> None:
    for text in ("one", "0,", "-1", "0;1"):
        with pytest.raises(BadParameter, match=f"{text!r} is neither numbers of GPUs, as 0,1, nor all"):
            gpus_of(text)
    with pytest.raises(BadParameter, match="'1,1' names a GPU twice"):
        gpus_of("1,1")
    with pytest.raises(DeviceError, match="Device 'cuda:4' is not there: this machine has 4 GPU"):
        gpus_of("0,4")


def test_all_of_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    with pytest.raises(DeviceError, match="Device 'cuda:0' is not there"):
        gpus_of("all")


def test_stages() -> None:
    assert [stages_of(text) for text in ("", "deploy", "a,b,")] == [[], ["deploy"], ["a", "b"]]
