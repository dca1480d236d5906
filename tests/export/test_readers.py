"""Exported files in OpenCV 5 and OpenVINO, with the values of the net."""

from __future__ import annotations

import pathlib

import cv2
import numpy as np
import pytest

import pycaffe
from pycaffe.export import export_onnx, onnx_file
from tests.conftest import TrainedNet
from tests.export.nets import CAFFENET, MIXED, answer, assert_same, conv, filled, noise
from tests.net.nets import data, ip, layer

Arrays = dict[str, np.ndarray]
NETS = {
    "CaffeNet": CAFFENET,
    "mixed": MIXED,
    "activations": data(2, 3, 6, 7)
    + conv("conv", "data", 4, "kernel_size: 3 dilation: 2 pad: 2")
    + layer("power", "Power", "conv", rest="power_param { power: 2 scale: 0.5 shift: 0.1 }")
    + layer("tanh", "TanH", "power")
    + layer("sigmoid", "Sigmoid", "tanh")
    + layer("leaky", "ReLU", "conv", rest="relu_param { negative_slope: 0.1 }")
    + layer("product", "Eltwise", "sigmoid leaky", rest="eltwise_param { operation: PROD }")
    + layer("mvn", "MVN", "product")
    + layer("slice", "Slice", "mvn", "left right", "slice_param { axis: 1 slice_point: 1 }")
    + layer("spp", "SPP", "left", rest="spp_param { pyramid_height: 2 }")
    + layer("tile", "Tile", "right", rest="tile_param { axis: 2 tiles: 2 }")
    + layer("best", "ArgMax", "tile", rest="argmax_param { axis: 1 }"),
    "two inputs": data(2, 3, 4, name="a")
    + data(2, 3, 4, name="b")
    + layer("sum", "Eltwise", "a b")
    + ip("fc", "sum", 5)
    + layer("prob", "Softmax", "fc"),
}


def by_opencv(path: pathlib.Path, inputs: Arrays, outputs: list[str]) -> Arrays:
    net = cv2.dnn.readNetFromONNX(str(path))
    for name, values in inputs.items():
        net.setInput(values, name)
    return dict(zip(outputs, net.forward(outputs)))


def by_openvino(path: pathlib.Path, inputs: Arrays, outputs: list[str]) -> Arrays:
    import openvino

    core = openvino.Core()
    # Where the CPU has bfloat16, OpenVINO takes it unless told not to.
    model = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = model(inputs)
    return {name: results[name] for name in outputs}


READERS = pytest.mark.parametrize("read", [by_opencv, by_openvino])


@READERS
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("name", NETS)
def test_small_nets_at_any_batch(name: str, batch: int, read, tmp_path: pathlib.Path) -> None:
    net = filled(NETS[name])
    inputs = noise(net, batch)
    report = export_onnx(net, tmp_path / "net.onnx")
    assert_same(answer(net, inputs), read(tmp_path / "net.onnx", inputs, list(report.outputs)), rtol=2e-5)


@READERS
def test_a_fixed_batch_and_each_end_of_the_opsets(read, tmp_path: pathlib.Path) -> None:
    net = filled(MIXED)
    inputs = noise(net)
    want = answer(net, inputs)
    for opset in (13, 21):
        export_onnx(net, tmp_path / "net.onnx", dynamic_batch=False, opset=opset)
        assert_same(want, read(tmp_path / "net.onnx", inputs, list(want)), rtol=2e-5)


@READERS
def test_weights_beside_the_file(read, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", 0)
    net = filled(CAFFENET)
    inputs = noise(net)
    export_onnx(net, tmp_path / "net.onnx")
    assert (tmp_path / "net.onnx.data").exists()
    assert_same(answer(net, inputs), read(tmp_path / "net.onnx", inputs, ["prob"]), rtol=2e-5)


@READERS
def test_preprocessing_in_the_file(read, tmp_path: pathlib.Path) -> None:
    net = filled(CAFFENET)
    preprocess = pycaffe.ImagePreprocess(mean=(9, 90, 30), scale=0.02, channel_order="RGB")
    image = np.random.default_rng(4).integers(0, 256, (35, 43, 3), np.uint8)
    export_onnx(net, tmp_path / "net.onnx", preprocessing=preprocess)
    raw = {"data": image.transpose(2, 0, 1)[np.newaxis].astype(np.float32)}
    want = answer(net, {"data": preprocess(image)[np.newaxis]})
    assert_same(want, read(tmp_path / "net.onnx", raw, ["prob"]), rtol=2e-5)


@READERS
def test_open_nsfw(open_nsfw: TrainedNet, read, tmp_path: pathlib.Path) -> None:
    net = pycaffe.Net(open_nsfw.model, pycaffe.TEST, weights=open_nsfw.weights)
    report = export_onnx((open_nsfw.model, open_nsfw.weights), tmp_path / "nsfw.onnx", check=True)
    assert report.outputs == {"prob": ("N", 2)}
    assert report.errors["prob"].relative < 1e-4
    inputs = {"data": 50 * np.random.default_rng(1).standard_normal((2, 3, 224, 224), np.float32)}
    assert_same(answer(net, inputs), read(tmp_path / "nsfw.onnx", inputs, ["prob"]), rtol=1e-4)
