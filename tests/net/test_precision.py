from __future__ import annotations

import re

import pytest

from pycaffe.errors import DeviceError, InputError, NetError
from pycaffe.net import TRAIN, Net
from tests.net.nets import data, ip, layer, net_of, normal

TEXT = data(2, 3) + ip("ip", "data", 4)
SOME = [normal(3)]


@pytest.mark.parametrize(
    ("asked", "engine"),
    [
        ({}, None),
        ({"engine": "torch"}, "torch"),
        ({"engine": "openvino"}, "openvino"),
        ({"precision": "bfloat16"}, "openvino"),
        ({"precision": "bfloat16", "engine": "openvino", "device": "cpu"}, "openvino"),
        ({"precision": "int8", "calibration": SOME}, "onnxruntime"),
        ({"precision": "int8", "engine": "onnxruntime", "calibration": SOME}, "onnxruntime"),
    ],
)
def test_the_engine_that_is_chosen(asked: dict[str, object], engine: str | None) -> None:
    assert net_of(TEXT, **asked)._engine == engine


@pytest.mark.parametrize(
    ("asked", "kind", "sentence"),
    [
        ({"engine": "openvin"}, NetError, "Unknown engine 'openvin'. Expected one of ('torch', 'onnxruntime', 'openvi"),
        ({"engine": "openvin"}, NetError, "Did you mean 'openvino'?"),
        (
            {"precision": "bfloat"},
            InputError,
            "Unknown precision 'bfloat'. Expected one of ('float32', 'bfloat16', 'in",
        ),
        ({"precision": "bf16"}, InputError, "Unknown precision 'bf16'."),
        ({"precision": 8}, InputError, "Unknown precision 8."),
        (
            {"precision": "bfloat16", "engine": "torch"},
            InputError,
            "runs on engine='openvino' alone. Got engine='torch",
        ),
        ({"precision": "int8", "engine": "openvino", "calibration": SOME}, InputError, "engine='onnxruntime' alone"),
        ({"precision": "int8"}, InputError, "precision='int8' needs calibration=inputs: an iterable of some 20 to 200"),
        ({"calibration": SOME}, InputError, "calibration belongs to precision='int8'. Got precision='float32'."),
        ({"precision": "bfloat16", "calibration": SOME}, InputError, "Got precision='bfloat16'."),
        ({"precision": "int8", "calibration": []}, InputError, "calibration is empty. Pass some inputs"),
        ({"precision": "bfloat16", "phase": TRAIN}, NetError, "for nets in the TEST phase: training is in float32"),
        ({"engine": "openvino", "device": "cuda:0"}, (InputError, DeviceError), "cuda:0"),
    ],
)
def test_what_does_not_go_together(asked: dict[str, object], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=re.escape(sentence)):
        net_of(TEXT, **asked)


def test_openvino_is_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycaffe.devices.check_device", lambda device: device)
    for asked in ({"engine": "openvino"}, {"precision": "bfloat16"}, {"precision": "int8", "calibration": SOME}):
        with pytest.raises(InputError, match=r"runs on the CPU\. Got device='cuda:0'"):
            net_of(TEXT, device="cuda:0", **asked)


def test_int8_is_for_nets_that_are_compiled_as_a_whole() -> None:
    rest = 'recurrent_param { num_output: 2 weight_filler { type: "xavier" } }'
    rnn = data(4, 2, 3) + data(4, 2, name="cont") + layer("r", "RNN", "data cont", rest=rest)
    with pytest.raises(NetError, match=r"Layer 'r' \(RNN\) has none: .*In test.prototxt:3"):
        net_of(rnn, precision="int8", calibration=SOME)
    reader = layer("d", "DummyData", rest="dummy_data_param { shape { dim: 2 dim: 3 } }")
    with pytest.raises(NetError, match=r"Layer 'd' \(DummyData\) has none: it runs on the host"):
        net_of(reader, precision="int8", calibration=SOME)


def test_openvino_feeds_on_layers_of_the_host() -> None:
    filler = 'dummy_data_param { shape { dim: 2 dim: 3 } data_filler { type: "constant" value: -2 } }'
    net = net_of(layer("d", "DummyData", rest=filler) + layer("a", "AbsVal", "d"), engine="openvino")
    assert (net.forward()["a"] == 2).all()


def test_caffes_own_name_takes_them_as_well(tmp_path) -> None:
    import caffe

    (tmp_path / "net.prototxt").write_text(TEXT)
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST, precision="bfloat16")
    assert isinstance(net, Net)
    assert net.forward(data=normal(2, 3))["ip"].shape == (2, 4)
