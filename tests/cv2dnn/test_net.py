"""Net: inputs, forward, parameters, outputs, devices."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import cv2
import numpy as np
import pytest

import pycaffe
from pycaffe import cv2dnn
from pycaffe.cv2dnn.inspection import Inspection
from pycaffe.errors import InputError, NetError, WeightsError
from tests.cv2dnn.answers import input_of

TWO_INPUTS = b"""
input: "a" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 }
input: "b" input_shape { dim: 1 dim: 2 dim: 3 dim: 4 }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "relu" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "halves" type: "Slice" bottom: "sum" top: "left" top: "right" slice_param { axis: 3 } }
layer { name: "double" type: "Power" bottom: "left" top: "double" power_param { scale: 2 } }
layer { name: "triple" type: "Power" bottom: "right" top: "triple" power_param { scale: 3 } }
"""


@pytest.fixture
def two_inputs() -> cv2dnn.Net:
    return pycaffe.read_net_from_caffe(TWO_INPUTS)


def set_both(net: cv2dnn.Net) -> tuple[Any, Any]:
    a, b = input_of((1, 2, 3, 4), 1), input_of((1, 2, 3, 4), 2)
    net.setInput(a, "a")
    net.setInput(b, "b")
    return a, b


def test_each_layer_has_an_output_of_its_own_in_place_or_not(two_inputs: cv2dnn.Net) -> None:
    a, b = set_both(two_inputs)
    summed, relu = two_inputs.forward(["sum", "relu"])
    np.testing.assert_array_equal(summed, a + b)
    np.testing.assert_array_equal(relu, np.maximum(a + b, 0))
    np.testing.assert_array_equal(two_inputs.forward("sum"), a + b)


def test_all_outputs_of_a_layer(two_inputs: cv2dnn.Net) -> None:
    a, b = set_both(two_inputs)
    ((left, right), (double,)) = two_inputs.forwardAndRetrieve(["halves", "double"])
    expected = np.maximum(a + b, 0)
    np.testing.assert_array_equal(left, expected[..., :2])
    np.testing.assert_array_equal(right, expected[..., 2:])
    np.testing.assert_array_equal(double, 2 * expected[..., :2])
    np.testing.assert_array_equal(two_inputs.forward(), 3 * expected[..., 2:])
    with pytest.raises(InputError, match="outBlobNames cannot be empty"):
        two_inputs.forwardAndRetrieve([])


def test_answers_stay_as_they_are(two_inputs: cv2dnn.Net) -> None:
    set_both(two_inputs)
    first = two_inputs.forward("relu")
    kept = first.copy()
    two_inputs.setInput(np.full((1, 2, 3, 4), 9, np.float32), "a")
    second = two_inputs.forward("relu")
    np.testing.assert_array_equal(first, kept)
    first[...] = -1
    np.testing.assert_array_equal(two_inputs.forward("relu"), second)


def test_inputs_reshape_by_themselves_and_come_in_any_type(two_inputs: cv2dnn.Net) -> None:
    for shape in ((1, 2, 3, 4), (3, 5, 7, 2), (1, 2, 3, 4)):
        for dtype in (np.uint8, np.int32, np.float16, np.float64):
            two_inputs.setInput(np.full(shape, 3, dtype))
            two_inputs.setInput(np.full(shape, 4, dtype), "b")
            np.testing.assert_array_equal(two_inputs.forward("relu"), np.full(shape, 7, np.float32))


def test_mean_and_scale(two_inputs: cv2dnn.Net) -> None:
    a = input_of((1, 2, 3, 4), 1)
    two_inputs.setInput(a, "a", 0.5, (1, -2))
    two_inputs.setInput(np.zeros_like(a), "b")
    np.testing.assert_allclose(two_inputs.forward("sum"), (a - np.array([1, -2.0]).reshape(2, 1, 1)) * 0.5, rtol=1e-6)
    with pytest.raises(InputError, match=r"up to four channels. Got 3 for shape \(1, 5, 2, 2\)"):
        two_inputs.setInput(np.zeros((1, 5, 2, 2)), mean=3)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (None, "not a numpy array of numbers. Got NoneType"),
        ([1, 2], "not a numpy array of numbers. Got list"),
        (np.zeros((1, 2), bool), "Got an array of bool"),
        (np.zeros((0, 2)), r"inp.total\(\) is 0: the blob has shape \(0, 2\)"),
    ],
)
def test_blobs_that_are_none(two_inputs: cv2dnn.Net, blob: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        two_inputs.setInput(blob)


def test_names_of_inputs(two_inputs: cv2dnn.Net) -> None:
    with pytest.raises(InputError, match="nothing was set as input 'a'"):
        two_inputs.forward()
    with pytest.raises(InputError, match=r"""Requested blob "c" not found. The net's inputs are \['a', 'b'\]"""):
        two_inputs.setInput(np.zeros((1, 2)), "c")
    two_inputs.setInputsNames(["x", "y"])
    two_inputs.setInput(np.ones((1, 2, 1, 2)), "y")
    two_inputs.setInput(np.ones((1, 2, 1, 2)))
    assert two_inputs.forward("sum").shape == (1, 2, 1, 2)
    assert two_inputs.getLayer(0).outputNameToIndex("y") == 1
    with pytest.raises(InputError, match="The net has 2 inputs"):
        two_inputs.setInputsNames(["x"])


def test_input_shape_ahead_of_values(two_inputs: cv2dnn.Net) -> None:
    two_inputs.setInputShape("a", (5, 2, 3, 4))
    assert two_inputs._inputs[0].shape == (5, 2, 3, 4)
    with pytest.raises(InputError, match='Requested blob "c" not found'):
        two_inputs.setInputShape("c", (1,))


def test_layers_that_are_not_there(two_inputs: cv2dnn.Net) -> None:
    set_both(two_inputs)
    with pytest.raises(NetError, match=r"Requested layer .doubel. not found\. Did you mean 'double'\?"):
        two_inputs.forward("doubel")
    with pytest.raises(NetError, match="inputs are no outputs"):
        two_inputs.forward("_input")
    with pytest.raises(NetError, match=r"Layer with requested id=99 not found\. The net has 6"):
        two_inputs.getLayer(99)


def test_errors_are_opencvs_and_ours(two_inputs: cv2dnn.Net) -> None:
    with pytest.raises(cv2.error, match="not found") as caught:
        two_inputs.getLayer("nobody")
    assert isinstance(caught.value, NetError)
    assert caught.value.code == -2 and "nobody" in caught.value.err  # type: ignore[attr-defined]
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, cv2.error) and str(again) == str(caught.value)
    two_inputs.setInput(np.zeros((1, 2, 3, 4)))
    two_inputs.setInput(np.zeros((1, 2, 3, 5)), "b")
    with pytest.raises(cv2.error, match="layer 'sum'"):
        two_inputs.forward()
    with pytest.raises(cv2.error, match="Could not open file"):
        pycaffe.read_net_from_caffe("/nowhere/deploy.prototxt")


def test_parameters(toy: tuple[str, str]) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    net.setInput(input_of((2, 3, 13, 11)))
    before, weights = net.forward("conv1"), net.getParam("conv1")
    weights *= 2  # a copy
    np.testing.assert_array_equal(net.forward("conv1"), before)
    bias = net.getParam(1, 1)
    assert bias.shape == (6, 1)
    net.setParam("conv1", 0, weights)
    net.setParam(1, 1, bias.ravel() * 2)
    np.testing.assert_allclose(net.forward("conv1"), before * 2, rtol=1e-5)
    with pytest.raises(InputError, match=r"has 2 parameter blobs\. Got numParam=2"):
        net.getParam("conv1", 2)
    with pytest.raises(InputError, match=r"has shape \(6, 3, 3, 3\). Got shape \(3,\)"):
        net.setParam("conv1", 0, np.zeros(3))


def test_registered_outputs(two_inputs: cv2dnn.Net) -> None:
    a, b = set_both(two_inputs)
    identity = two_inputs.registerOutput("the right half", 3, 1)
    assert identity == 6 and two_inputs.getLayer(identity).type == "Identity"
    assert two_inputs.getUnconnectedOutLayersNames() == ("the right half",)
    np.testing.assert_array_equal(two_inputs.forward(), np.maximum(a + b, 0)[..., 2:])
    assert [list(shapes[0]) for shapes in two_inputs.getLayersShapes([(1, 2, 3, 4)] * 2)[2]][-1] == [1, 2, 3, 2]
    with pytest.raises(InputError, match=r"Layer with name='sum' already exists id=1 \(to be linked with 2:0\)"):
        two_inputs.registerOutput("sum", 2, 0)
    with pytest.raises(InputError, match="Layer 'sum' has no output 1"):
        two_inputs.registerOutput("second", 1, 1)


def test_connections_that_are_there_already(two_inputs: cv2dnn.Net) -> None:
    two_inputs.connect("sum", "relu")
    with pytest.raises(NetError, match='Input #0 of layer "triple" already was connected'):
        two_inputs.connect("sum", "triple")
    with pytest.raises(NetError, match='Requested layer "x" not found'):
        two_inputs.connect("x", "relu")


def test_forward_async(two_inputs: cv2dnn.Net) -> None:
    a, b = set_both(two_inputs)
    answer = two_inputs.forwardAsync("sum")
    assert answer.wait_for(60e9) and answer.valid()
    np.testing.assert_array_equal(answer.get(), a + b)
    there, values = answer.get(1e9)
    assert there and values.shape == (1, 2, 3, 4)
    with pytest.raises(cv2.error, match="nobody"):
        two_inputs.forwardAsync("nobody").get()
    release = threading.Event()
    assert two_inputs._thread is not None
    blocker = two_inputs._thread.submit(release.wait)
    late = two_inputs.forwardAsync("sum")
    assert late.get(1e6) == (False, None)
    release.set()
    assert blocker.result() and late.get().shape == (1, 2, 3, 4)
    two_inputs._thread.shutdown()


def test_what_is_accepted_changes_nothing(two_inputs: cv2dnn.Net, caplog: pytest.LogCaptureFixture) -> None:
    set_both(two_inputs)
    before = two_inputs.forward()
    two_inputs.enableFusion(False)
    two_inputs.enableWinograd(False)
    two_inputs.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    two_inputs.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    np.testing.assert_array_equal(two_inputs.forward(), before)


def test_gpu_targets_fall_back_without_one(
    two_inputs: cv2dnn.Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pycaffe.cv2dnn.net.gpu_count", lambda: 0)
    set_both(two_inputs)
    two_inputs.setPreferableTarget(cv2.dnn.DNN_TARGET_CUDA)
    assert "this machine has no GPU; switching to the CPU" in caplog.text
    assert two_inputs.forward().shape == (1, 2, 3, 2)


def test_gpu_targets_choose_a_device_and_keep_inputs_and_parameters(
    toy: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a machine that only claims to have a GPU: the net is made for it, nothing runs there."""
    net = pycaffe.read_net_from_caffe(*toy)
    net.setInput(input_of((4, 3, 13, 11)))
    before = net.forward()
    for module in ("pycaffe.cv2dnn.net", "pycaffe.devices"):
        monkeypatch.setattr(f"{module}.gpu_count", lambda: 1)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CUDA_FP16)
    assert net._net._device == "cuda:0"
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    assert net._net._device == "cpu"
    np.testing.assert_array_equal(net.forward(), before)


def test_time_of_the_last_forward(two_inputs: cv2dnn.Net) -> None:
    assert two_inputs.getPerfProfile()[0] == 0
    set_both(two_inputs)
    two_inputs.forward("sum")
    ticks, by_layer = two_inputs.getPerfProfile()
    assert 0 < ticks / cv2.getTickFrequency() < 60
    assert by_layer.nonzero()[0].tolist() == [0]


def test_it_has_opencvs_methods() -> None:
    left_out = {
        "addLayer", "addLayerToPrev", "dumpToPbtxt", "readFromModelOptimizer", "setHalideScheduler",
        # Of OpenCV 5's engine.
        "disableKVCache", "enableKVCache", "finalizeNet", "getLayerShapes", "getModelFormat", "getProfilingMode",
        "getTracingMode", "printPerfProfile", "resetKVCache", "setProfilingMode", "setTracingMode",
    }  # fmt: skip
    theirs = {name for name in dir(cv2.dnn.Net) if not name.startswith("_")}
    assert theirs - set(dir(cv2dnn.Net)) - left_out == set()
    assert issubclass(cv2dnn.Net, Inspection)


def test_weights_that_do_not_fit(two_inputs: cv2dnn.Net, toy: tuple[str, str]) -> None:
    with open(toy[1], "rb") as file, pytest.raises(WeightsError, match=r"file: \(buffer\): the file is truncated"):
        pycaffe.read_net_from_caffe(TWO_INPUTS, file.read()[:-100])
    with pytest.warns(UserWarning, match="nothing was copied"):
        pycaffe.read_net_from_caffe(b'input: "a" input_dim: 1 input_dim: 2 input_dim: 1 input_dim: 1 '
                                    b'layer { name: "x" type: "PReLU" bottom: "a" top: "x" }', toy[1])  # fmt: skip
