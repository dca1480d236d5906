"""install, uninstall and `python -m pycaffe.cv2dnn`."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import onnx
import pytest

from pycaffe import cv2dnn
from tests.cv2dnn.answers import input_of
from tests.cv2dnn.conftest import Files

NAMES = ("readNetFromCaffe", "readNet", "Model", "ClassificationModel", "DetectionModel", "SegmentationModel")


@pytest.fixture
def installed() -> Iterator[None]:
    cv2dnn.install()
    yield
    cv2dnn.uninstall()


def test_it_goes_as_it_came() -> None:
    before = {name: getattr(cv2.dnn, name, None) for name in NAMES}
    cv2dnn.install()
    cv2dnn.install()
    assert all(getattr(cv2.dnn, name) is not before[name] for name in NAMES)
    assert cv2.dnn_DetectionModel is cv2.dnn.DetectionModel
    cv2dnn.uninstall()
    cv2dnn.uninstall()
    assert {name: getattr(cv2.dnn, name, None) for name in NAMES} == before
    assert hasattr(cv2.dnn, "readNetFromCaffe") == cv2.__version__.startswith("4")


def test_all_ways_to_read(installed: None, toy: tuple[str, str]) -> None:
    prototxt, weights = toy
    buffers = [np.fromfile(path, np.uint8) for path in toy]
    outputs = []
    for net in (
        cv2.dnn.readNetFromCaffe(prototxt, weights),
        cv2.dnn.readNetFromCaffe(prototxt=prototxt, caffeModel=weights),
        cv2.dnn.readNetFromCaffe(*buffers),
        cv2.dnn.readNetFromCaffe(bufferProto=buffers[0], bufferModel=buffers[1]),
        cv2.dnn.readNet(weights, prototxt),
        cv2.dnn.readNet(prototxt, weights),
        cv2.dnn.readNet(model=weights, config=prototxt),
        cv2.dnn.readNet(weights, prototxt, "Caffe"),
        cv2.dnn.readNet("caffe", buffers[1], buffers[0]),
    ):
        assert isinstance(net, cv2dnn.Net)
        net.setInput(input_of((2, 3, 13, 11)))
        outputs.append(net.forward())
    assert all(np.array_equal(output, outputs[0]) for output in outputs)


def test_other_formats_go_to_opencv(installed: None, tmp_path: pathlib.Path) -> None:
    value = [onnx.helper.make_tensor_value_info(name, 1, [1, 3]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    file = tmp_path / "relu.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), file)
    net = cv2.dnn.readNet(str(file))
    assert not isinstance(net, cv2dnn.Net)
    assert not isinstance(cv2.dnn.Model(net), cv2dnn.Model)
    with pytest.raises(cv2.error):
        cv2.dnn.readNet("nothing.xyz")


def test_models_take_our_net_or_the_files(installed: None, files: Files) -> None:
    prototxt, weights = map(str, files("plate_ssd"))
    image = np.random.default_rng(0).integers(0, 255, (300, 400, 3)).astype(np.uint8)
    for model in (
        cv2.dnn.DetectionModel(weights, prototxt),
        cv2.dnn_DetectionModel(cv2.dnn.readNet(weights, prototxt)),
    ):
        model.setInputParams(1 / 58.0, (200, 150), (104, 117, 123))
        classes, scores, boxes = model.detect(image, 0.0)
        assert len(classes) == len(scores) == len(boxes) == 100

    class Mine(cv2.dnn.DetectionModel):  # type: ignore[misc, name-defined]
        pass

    assert isinstance(Mine(weights, prototxt), cv2dnn.DetectionModel)


SCRIPT = """
import sys, cv2, numpy as np
assert __name__ == "__main__", __name__
net = cv2.dnn.readNetFromCaffe(*sys.argv[1:])
net.setInput(np.zeros((2, 3, 13, 11), np.float32))
print(type(net).__module__, net.forward().shape)
"""


@pytest.mark.parametrize("form", ["script", "module"])
def test_a_script_runs_without_a_change(form: str, toy: tuple[str, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "old_script.py").write_text(SCRIPT)
    named = ["-m", "old_script"] if form == "module" else [str(tmp_path / "old_script.py")]
    command = [sys.executable, "-m", "pycaffe.cv2dnn", *named, *toy]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert output.split(" ", 1)[0] == "pycaffe.cv2dnn.net"


def test_the_command_says_how_it_is_used() -> None:
    command = [sys.executable, "-m", "pycaffe.cv2dnn"]
    wrong = subprocess.run(command, capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.startswith("usage: python -m pycaffe.cv2dnn script.py")
    helped = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "-m module" in helped.stdout
