"""Concats that only 1×1 convolutions read disappear, and numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pycaffe.engines.rewrites.split_concat import split_concatenations

RANDOM = np.random.default_rng(7)


def model(*nodes: onnx.NodeProto, outputs: tuple[str, ...] = ("y",), channels: int = 4) -> onnx.ModelProto:
    """Inputs a (2, 3, 7, 9) and b (2, 5, 7, 9); weights w (channels, 8, 1, 1), its bias, and w3 with 3×3 kernels."""
    arrays = {
        "w": RANDOM.standard_normal((channels, 8, 1, 1)),
        "bias": RANDOM.standard_normal(channels),
        "w3": RANDOM.standard_normal((channels, 8, 3, 3)),
    }
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, 7, 9]) for n, c in (("a", 3), ("b", 5))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


JOIN = helper.make_node("Concat", ["a", "b"], ["joined"], axis=1)
SQUEEZE = helper.make_node("Conv", ["joined", "w", "bias"], ["y"], group=1, strides=[2, 1])


def split(before: onnx.ModelProto) -> list[str]:
    """The types of nodes after splitting; checks that every output keeps its values."""
    after = onnx.ModelProto.FromString(before.SerializeToString())
    split_concatenations(after)
    onnx.checker.check_model(after, full_check=True)
    inputs = {name: RANDOM.standard_normal((2, c, 7, 9)).astype(np.float32) for name, c in (("a", 3), ("b", 5))}
    expected, got = (
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)
        for m in (before, after)
    )
    for x, y in zip(expected, got):
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-5)
    return [node.op_type for node in after.graph.node]


def test_a_squeezing_convolution_becomes_a_sum():
    assert split(model(JOIN, SQUEEZE)) == ["Constant", "Split", "Conv", "Conv", "Add"]


def test_through_a_max_pooling():
    pool = helper.make_node("MaxPool", ["joined"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    squeeze = helper.make_node("Conv", ["pooled", "w", "bias"], ["y"], group=1)
    types = split(model(JOIN, pool, squeeze))
    assert types == ["MaxPool", "MaxPool", "Constant", "Split", "Conv", "Conv", "Add"]


def test_two_readers_and_three_parts():
    join = helper.make_node("Concat", ["a", "b", "a"], ["long"], axis=1)
    cut = helper.make_node("Split", ["long", "sizes"], ["joined", "rest"], axis=1)
    sizes = helper.make_node("Constant", [], ["sizes"], value_ints=[8, 3])
    other = helper.make_node("Conv", ["joined", "w"], ["z"], group=1)
    assert "Concat" in split(model(join, sizes, cut, SQUEEZE, other, outputs=("y", "z")))  # Split reads it
    assert "Concat" not in split(model(JOIN, SQUEEZE, other, outputs=("y", "z")))


@pytest.mark.parametrize(
    "nodes, outputs, channels",
    [
        ((JOIN, SQUEEZE), ("y", "joined"), 4),  # it is asked for
        ((JOIN, SQUEEZE), ("y",), 5),  # as many sums as the joined blob has values
        ((JOIN, helper.make_node("Conv", ["joined", "w3"], ["y"], group=1)), ("y",), 4),
        ((JOIN, SQUEEZE, helper.make_node("Relu", ["joined"], ["z"])), ("y", "z"), 4),
        (
            (helper.make_node("Concat", ["a", "a"], ["joined"], axis=2), helper.make_node("Relu", ["joined"], ["y"])),
            ("y",),
            4,
        ),
    ],
)
def test_other_readers_keep_it(nodes, outputs, channels):
    before = model(*nodes, outputs=outputs, channels=channels)
    assert split(before) == [node.op_type for node in before.graph.node]


def test_only_pooling():
    """The joined blob is smaller after pooling, whoever reads it then."""
    pool = helper.make_node("MaxPool", ["joined"], ["y"], kernel_shape=[2, 3])
    assert split(model(JOIN, pool)) == ["MaxPool", "MaxPool", "Concat"]
