"""Strides of 1×1 convolutions move up, and numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from pycaffe.engines.rewrites.early_strides import move_strides_up

RANDOM = np.random.default_rng(5)
CHANNELS = 4


def conv(x: str, y: str, kernel: int = 1, **attributes: Any) -> NodeProto:
    """Weights w1 or w3; 3×3 kernels pad by 1."""
    pads = [kernel // 2] * 4
    return helper.make_node("Conv", [x, f"w{kernel}", "bias"], [y], kernel_shape=[kernel] * 2, pads=pads, **attributes)


def relu(x: str, y: str) -> NodeProto:
    return helper.make_node("Relu", [x], [y])


def add(a: str, b: str, y: str) -> NodeProto:
    return helper.make_node("Add", [a, b], [y])


def moved(*nodes: NodeProto, outputs: tuple[str, ...] = ("y",)) -> list[tuple[str, list[int]]]:
    """The types and strides of nodes afterwards; checks that every output keeps its values at two batch extents."""
    arrays = {f"w{kernel}": RANDOM.standard_normal((CHANNELS, CHANNELS, kernel, kernel)) for kernel in (1, 3)}
    arrays["bias"] = RANDOM.standard_normal(CHANNELS)
    arrays["by_channel"] = RANDOM.standard_normal((1, CHANNELS, 1, 1))
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", CHANNELS, 7, 10]) for name in ("x", "z")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after = onnx.ModelProto.FromString(before.SerializeToString())
    move_strides_up(after)
    onnx.checker.check_model(after, full_check=True)
    sessions = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (before, after)
    ]
    for batch in (1, 3):
        inputs = {name: RANDOM.standard_normal((batch, CHANNELS, 7, 10)).astype(np.float32) for name in ("x", "z")}
        for expected, got in zip(*(session.run(list(outputs), inputs) for session in sessions)):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return [(node.op_type, strides(node)) for node in after.graph.node]


def strides(node: NodeProto) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "strides"), [])


def test_to_the_convolution_before() -> None:
    nodes = [conv("x", "a", 3), relu("a", "b"), conv("b", "y", strides=[2, 2])]
    assert moved(*nodes) == [("Conv", [2, 2]), ("Relu", []), ("Conv", [1, 1])]


def test_strides_multiply_on_the_way() -> None:
    nodes = [conv("x", "a", 3, strides=[2, 1]), conv("a", "b", strides=[1, 2]), conv("b", "y", strides=[2, 2])]
    assert [step for _, step in moved(*nodes)] == [[4, 4], [1, 1], [1, 1]]


def test_through_the_sum_of_a_residual_block() -> None:
    """Both readers of the sum want a pixel of four, and so it is made; the other summand is picked from."""
    block = [relu("x", "a"), conv("a", "b", 3), add("a", "b", "c"), helper.make_node("Identity", ["c"], ["d"])]
    readers = [conv("d", "e", strides=[2, 2]), conv("c", "f", strides=[2, 2]), add("e", "f", "y")]
    nodes = moved(*block, *readers)
    assert nodes == [
        ("Relu", []),
        ("Conv", [2, 2]),
        ("AveragePool", [2, 2]),
        ("Add", []),
        ("Identity", []),
        ("Conv", [1, 1]),
        ("Conv", [1, 1]),
        ("Add", []),
    ]


def test_one_pick_for_all_who_want_it() -> None:
    nodes = [conv("x", "a", strides=[2, 2]), conv("x", "b", strides=[2, 2]), add("a", "b", "y")]
    assert moved(*nodes) == [("AveragePool", [2, 2]), ("Conv", [1, 1]), ("Conv", [1, 1]), ("Add", [])]


@pytest.mark.parametrize("outputs", [("y", "a"), ("y", "c")])
def test_what_somebody_else_reads_stays_whole(outputs: tuple[str, ...]) -> None:
    nodes = [conv("x", "a", 3), conv("a", "y", strides=[2, 2]), conv("a", "c", 3)]
    assert moved(*nodes, outputs=outputs)[0] == ("Conv", [1, 1])


def test_readers_who_want_different_pixels() -> None:
    nodes = [conv("x", "a", 3), conv("a", "y", strides=[2, 2]), conv("a", "c", strides=[3, 2])]
    steps = moved(*nodes, outputs=("y", "c"))
    assert [step for kind, step in steps if kind == "AveragePool"] == [[2, 2], [3, 2]]
    assert steps[0] == ("Conv", [1, 1])


def test_a_sum_that_repeats_one_summand_is_picked_from() -> None:
    nodes = [conv("x", "a", 3), add("a", "by_channel", "b"), conv("b", "y", strides=[2, 2])]
    assert [kind for kind, _ in moved(*nodes)] == ["Conv", "Add", "AveragePool", "Conv"]


def test_a_value_added_to_itself() -> None:
    nodes = [add("x", "x", "a"), conv("a", "y", strides=[2, 3])]
    assert moved(*nodes) == [("AveragePool", [2, 3]), ("Add", []), ("Conv", [1, 1])]


@pytest.mark.parametrize("kernel, attributes", [(3, {"strides": [2, 2]}), (1, {})])
def test_other_convolutions_stay(kernel: int, attributes: dict[str, Any]) -> None:
    nodes = [conv("x", "a", 3), conv("a", "y", kernel, **attributes)]
    assert moved(*nodes) == [("Conv", []), ("Conv", attributes.get("strides", []))]


def test_a_padded_1x1_convolution_stays() -> None:
    node = conv("x", "y", strides=[2, 2])
    next(attribute for attribute in node.attribute if attribute.name == "pads").ints[:] = [1, 1, 1, 1]
    assert moved(node) == [("Conv", [2, 2])]
