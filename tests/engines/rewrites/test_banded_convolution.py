"""A 1×1 convolution with a banded matrix becomes a few taps along the channels, and numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pycaffe.engines.rewrites.banded_convolution import use_channel_taps
from pycaffe.engines.rewrites.blocked_layout import DOMAIN

RANDOM = np.random.default_rng(12)
CHANNELS = 24
SQUARE = helper.make_node("Mul", ["x", "x"], ["a"])


def band(taps: list[float], channels: int = CHANNELS) -> Any:
    half = len(taps) // 2
    matrix = sum(tap * np.eye(channels, k=i - half) for i, tap in enumerate(taps))
    return np.asarray(matrix).reshape(channels, channels, 1, 1)


def conv(x: str, y: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, "w", "bias"], [y], **attributes)


def domains(
    *nodes: onnx.NodeProto,
    weight: Any = None,
    bias: Any = None,
    image: tuple[int | str, ...] = (6, 8),
) -> list[tuple[str, str]]:
    """Domain and type of the nodes afterwards; checks values for three batch extents, one of them 0."""
    weight = band([0.1, 0.2, 0.5, 0.3, 0.4]) if weight is None else weight
    bias = np.full(len(weight), 2.0) if bias is None else bias
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weight.shape[1], *image])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (2 + len(image)))],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in {"w": weight, "bias": bias}.items()],
    )
    before = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    after = onnx.ModelProto.FromString(before.SerializeToString())
    use_channel_taps(after)
    onnx.checker.check_model(after)
    sessions = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (before, after)
    ]
    for batch in (1, 3, 0):
        extents = [extent if isinstance(extent, int) else 8 for extent in image]
        x = RANDOM.standard_normal((batch, weight.shape[1], *extents)).astype(np.float32)
        expected, got = (session.run(None, {"x": x})[0] for session in sessions)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    return [(node.domain, node.op_type) for node in after.graph.node]


CHANGED = [("", "Reshape"), (DOMAIN, "Conv"), ("", "Reshape")]


@pytest.mark.parametrize("taps", [[1.0, 2.0, 3.0], [0.1, 0.2, 0.5, 0.3, 0.4], [0.0, 0.0, 1.0, 0.0, 2.0], [3.0]])
def test_taps(taps: list[float]) -> None:
    assert domains(conv("x", "y"), weight=band(taps)) == CHANGED


def test_squares_are_computed_in_the_new_shape() -> None:
    squared = [CHANGED[0], ("", "Mul"), *CHANGED[1:]]
    assert domains(SQUARE, conv("a", "y")) == squared
    divided = helper.make_node("Div", ["a", "b"], ["y"])
    assert domains(SQUARE, conv("a", "b"), divided) == [("", "Mul"), *squared, ("", "Div")]


def test_two_of_them() -> None:
    relu = helper.make_node("Relu", ["b"], ["c"])
    assert domains(SQUARE, conv("a", "b"), relu, conv("c", "y")).count(CHANGED[1]) == 2


@pytest.mark.parametrize("image", [(5, 5), (1, 1), (3, 17)])
def test_pixels_that_do_not_fill_blocks_are_padded(image: tuple[int, int]) -> None:
    types = [("", "Reshape"), ("", "Pad"), *CHANGED[:-1], ("", "Reshape"), ("", "Slice"), ("", "Reshape")]
    assert domains(conv("x", "y"), image=image) == types


def test_images_of_any_size_stay() -> None:
    assert domains(conv("x", "y"), image=("H", 8)) == [("", "Conv")]


def one_differs() -> Any:
    weight = band([1.0, 2.0, 3.0])
    weight[5, 6] = 0.0
    return weight


@pytest.mark.parametrize(
    "weight",
    [
        RANDOM.standard_normal((CHANNELS, CHANNELS, 1, 1)),
        one_differs(),
        band([1.0] * (2 * CHANNELS - 1)),
        np.eye(32, CHANNELS).reshape(32, CHANNELS, 1, 1),
        band([1.0, 2.0, 3.0]).reshape(CHANNELS, CHANNELS, 1),
    ],
    ids=["full", "one_differs", "as_wide_as_the_channels", "not_square", "one_axis"],
)
def test_other_matrices_stay(weight: Any) -> None:
    assert domains(conv("x", "y"), weight=weight, image=(6, 8)[: weight.ndim - 2]) == [("", "Conv")]


def test_other_biases_stay() -> None:
    assert domains(conv("x", "y"), bias=np.arange(float(CHANNELS))) == [("", "Conv")]


@pytest.mark.parametrize("change", [{"strides": [2, 2]}, {"pads": [1, 1, 1, 1]}])
def test_other_convolutions_stay(change: dict[str, Any]) -> None:
    assert domains(conv("x", "y", **change)) == [("", "Conv")]
