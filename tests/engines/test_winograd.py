"""Large 3×3 convolutions become Winograd's tiles, and numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pycaffe.engines import winograd
from pycaffe.engines.winograd import pays, use_winograd
from pycaffe.engines.winograd_rows import rows_pay

RANDOM = np.random.default_rng(11)
CHANNELS, OUTPUTS = 16, 5
CONV: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


@pytest.fixture(autouse=True)
def _every_shape_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "pays", lambda channels, outputs, height, width: True)
    monkeypatch.setattr(winograd, "rows_pay", lambda channels, outputs, height, width: False)
    monkeypatch.setattr(winograd, "_many_channels", lambda channels, outputs: True)


def model(*nodes: onnx.NodeProto, height: int = 7, width: int = 12, kernel: int = 3) -> onnx.ModelProto:
    arrays = {"w": RANDOM.standard_normal((OUTPUTS, CHANNELS, kernel, kernel)), "bias": RANDOM.standard_normal(OUTPUTS)}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rewritten(before: onnx.ModelProto, height: int = 7, width: int = 12) -> list[str]:
    """The types of nodes afterwards; checks values for two batch extents, and which weights are left."""
    arrays = {t.name: numpy_helper.to_array(t) for t in before.graph.initializer if t.name == "w"}
    values = {name: (lambda array=array: array) for name, array in arrays.items()}
    after = onnx.ModelProto.FromString(before.SerializeToString())
    use_winograd(after, values)
    for tensor in after.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name](), tensor.name))
    names = {tensor.name for tensor in after.graph.initializer}
    assert values.keys() <= names
    read = {name for node in after.graph.node for name in node.input}
    assert names <= read, "nothing is left that nobody reads"
    onnx.checker.check_model(after, full_check=True)
    sessions = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (before, after)
    ]
    for batch in (1, 3):
        x = RANDOM.standard_normal((batch, CHANNELS, height, width)).astype(np.float32)
        expected, got = (session.run(None, {"x": x})[0] for session in sessions)
        assert np.abs(got - expected).max() <= 2e-5 * np.abs(expected).max()
    return [node.op_type for node in after.graph.node]


@pytest.mark.parametrize("height, width", [(7, 12), (8, 8), (5, 6), (1, 3)])
@pytest.mark.parametrize("inputs", [["x", "w"], ["x", "w", "bias"]])
def test_tiles_of_any_number(height: int, width: int, inputs: list[str]) -> None:
    types = rewritten(model(helper.make_node("Conv", inputs, ["y"], **CONV), height=height, width=width), height, width)
    assert types.count("Conv") == 6 + 36 + 36
    assert ("Slice" in types) == (height % 4 > 0 or width % 4 > 0)


def test_two_convolutions_share_what_is_not_theirs() -> None:
    first, second = (helper.make_node("Conv", ["x", "w"], [name], **CONV) for name in "ab")
    before = model(
        first, second, helper.make_node("Sub", ["a", "b"], ["c"]), helper.make_node("Add", ["a", "c"], ["y"])
    )
    assert rewritten(before).count("DepthToSpace") == 2


def test_weights_that_another_layer_reads_stay() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["a"], **CONV)
    other = helper.make_node("Conv", ["x", "w"], ["b"], kernel_shape=[3, 3], pads=[2, 2, 2, 2], dilations=[2, 2])
    assert rewritten(model(conv, other, helper.make_node("Add", ["a", "b"], ["y"]))).count("Conv") == 6 + 36 + 36 + 1


@pytest.mark.parametrize("height", [3, 4, 7, 12])
@pytest.mark.parametrize("inputs", [["x", "w"], ["x", "w", "bias"]])
def test_rows_of_any_number(monkeypatch: pytest.MonkeyPatch, height: int, inputs: list[str]) -> None:
    monkeypatch.setattr(winograd, "pays", lambda *shape: False)
    monkeypatch.setattr(winograd, "rows_pay", lambda *shape: True)
    types = rewritten(model(helper.make_node("Conv", inputs, ["y"], **CONV), height=height, width=5), height, 5)
    assert types.count("Conv") == 6 + 6
    assert ("Slice" in types) == (height % 4 > 0)


@pytest.mark.parametrize(
    "change",
    [{"pads": [0, 0, 0, 0]}, {"pads": [1, 1, 0, 1]}, {"strides": [1, 2]}, {"dilations": [1, 2]}, {"auto_pad": "VALID"}],
)
def test_other_convolutions_stay(change: dict[str, Any]) -> None:
    attributes = {**CONV, **change}
    if "auto_pad" in change:
        del attributes["pads"]
    assert rewritten(model(helper.make_node("Conv", ["x", "w", "bias"], ["y"], **attributes))) == ["Conv"]


def test_other_kernels_stay() -> None:
    conv = helper.make_node("Conv", ["x", "w", "bias"], ["y"], kernel_shape=[5, 5], pads=[1, 1, 1, 1])
    assert rewritten(model(conv, kernel=5)) == ["Conv"]


def test_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the rule as it is
    assert pays(512, 512, 28, 28)
    assert not pays(64, 64, 224, 224)
    assert not pays(512, 512, 7, 7)
    assert not pays(500, 512, 28, 28)
    assert not pays(256, 256, 28, 28)
    assert rows_pay(256, 256, 56, 56)
    assert rows_pay(512, 512, 14, 14)
    assert not rows_pay(128, 256, 56, 56)
    assert not rows_pay(256, 256, 14, 14)
    assert not rows_pay(500, 512, 14, 14)
    assert not rows_pay(512, 512, 7, 7)
    assert rewritten(model(helper.make_node("Conv", ["x", "w", "bias"], ["y"], **CONV))) == ["Conv"]
