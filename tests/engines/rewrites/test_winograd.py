"""Convolutions become Winograd's products of rows or tiles, and numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pycaffe.engines.rewrites import winograd
from pycaffe.engines.rewrites.blocked_layout import block_size
from pycaffe.engines.rewrites.winograd import Convolution, best_form, use_winograd, winograd_matrices

RANDOM = np.random.default_rng(11)
CHANNELS, OUTPUTS = 32, 64  # whole blocks, in two groups too
CONV: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


@pytest.fixture(autouse=True)
def _every_shape_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert block_size() in (8, 16), "on this machine onnxruntime blocks channels"
    monkeypatch.setattr(winograd, "best_form", lambda convolution, block: "rows")


@pytest.fixture
def _in_tiles(monkeypatch: pytest.MonkeyPatch, _every_shape_pays: None) -> None:
    monkeypatch.setattr(winograd, "best_form", lambda convolution, block: "tiles")


def model(
    *nodes: onnx.NodeProto, height: int = 7, width: int = 12, taps: tuple[int, int] = (3, 3), group: int = 1
) -> onnx.ModelProto:
    arrays = {"w": RANDOM.standard_normal((OUTPUTS, CHANNELS // group, *taps)), "bias": RANDOM.standard_normal(OUTPUTS)}
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CHANNELS, height, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rewritten(before: onnx.ModelProto) -> list[str]:
    """The types of nodes afterwards; checks values for three batch extents and which weights are left."""
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
    onnx.checker.check_model(after)
    sessions = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (before, after)
    ]
    for batch in (1, 3, 0):
        shape = [dim.dim_value for dim in before.graph.input[0].type.tensor_type.shape.dim[1:]]
        x = RANDOM.standard_normal((batch, *shape)).astype(np.float32)
        expected, got = (session.run(None, {"x": x})[0] for session in sessions)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max(initial=0) <= 5e-6 * np.abs(expected).max(initial=0)
    return [node.op_type for node in after.graph.node]


def conv(x: str, y: str, bias: bool = True, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, "w", "bias"] if bias else [x, "w"], [y], **{**CONV, **attributes})


@pytest.mark.parametrize("height, width", [(7, 12), (8, 8), (13, 6), (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_rows_of_any_number(height: int, width: int, bias: bool) -> None:
    types = rewritten(model(conv("x", "y", bias), height=height, width=width))
    assert types.count("Conv") == 6 + 1
    assert ("Slice" in types) == (height % 4 > 0)


@pytest.mark.usefixtures("_in_tiles")
@pytest.mark.parametrize("height, width", [(7, 12), (8, 8), (13, 6), (1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("group", [1, 2])
def test_tiles_of_any_number(height: int, width: int, bias: bool, group: int) -> None:
    types = rewritten(model(conv("x", "y", bias, group=group), height=height, width=width, group=group))
    assert types.count("Conv") == 6 + 6 + 1
    assert "Gather" in types


@pytest.mark.usefixtures("_in_tiles")
def test_between_tiles_all_stays_blocked() -> None:
    back = helper.make_node("MaxPool", ["b"], ["y"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    types = rewritten(model(conv("x", "a"), helper.make_node("Relu", ["a"], ["b"]), back, height=9))
    assert (types.count("ReorderInput"), types.count("ReorderOutput")) == (1, 1)


@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 0, 0, 1], [0, 2, 3, 0], [2, 2, 2, 2]])
@pytest.mark.parametrize("form", ["rows", "tiles"])
def test_pads_of_each_side(pads: list[int], form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(winograd, "best_form", lambda convolution, block: form)
    assert len(rewritten(model(conv("x", "y", pads=pads)))) > 1


@pytest.mark.parametrize("taps", [(5, 5), (5, 1), (3, 7), (3, 4)])
@pytest.mark.parametrize("group", [1, 2])
def test_taps_and_groups(taps: tuple[int, int], group: int) -> None:
    node = conv("x", "y", kernel_shape=taps, pads=[taps[0] // 2, taps[1] // 2] * 2, group=group)
    assert rewritten(model(node, taps=taps, group=group, height=10, width=9)).count("Conv") == taps[0] + 3 + 1


def test_activations_and_poolings_between_stay_blocked() -> None:
    pool = helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    back = helper.make_node("Conv", ["c", "back"], ["d"], kernel_shape=[1, 1])  # to as many channels as there were
    before = model(conv("x", "a"), helper.make_node("Relu", ["a"], ["b"]), pool, back, conv("d", "y"), height=9)
    weight = RANDOM.standard_normal((CHANNELS, OUTPUTS, 1, 1)).astype(np.float32)
    before.graph.initializer.append(numpy_helper.from_array(weight, "back"))
    types = rewritten(before)
    assert (types.count("ReorderInput"), types.count("ReorderOutput")) == (2, 2)


@pytest.mark.parametrize(
    "height, kernel, pads, cut",
    [
        (7, 3, [0, 0, 0, 0], False),  # windows end in row 6, of 8
        (7, 3, [0, 0, 1, 0], True),
        (6, 2, [0, 0, 0, 0], True),  # a fourth window would fit
        (6, 3, [0, 0, 0, 0], True),
        (5, 3, [0, 0, 0, 0], True),
        (8, 3, [0, 0, 0, 0], False),
    ],
)
def test_rows_that_a_pooling_leaves_out_need_not_be_cut(height: int, kernel: int, pads: list[int], cut: bool) -> None:
    pool = helper.make_node("MaxPool", ["b"], ["y"], kernel_shape=[kernel, 3], strides=[2, 2], pads=pads)
    relu = helper.make_node("Relu", ["a"], ["b"])
    assert ("Slice" in rewritten(model(conv("x", "a"), relu, pool, height=height))) == cut


def test_rows_are_cut_for_a_pooling_that_tells_its_places() -> None:
    sizes = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 0, 0]}
    pool = helper.make_node("MaxPool", ["a"], ["b", "places"], **sizes)
    assert "Slice" in rewritten(model(conv("x", "a"), pool, helper.make_node("Cast", ["places"], ["y"], to=1)))


def test_rows_are_cut_where_another_reads_them() -> None:
    pool = helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 0, 0])
    flat = [helper.make_node("Flatten", [name], [f"{name}-flat"]) for name in "ab"]
    total = helper.make_node("Concat", ["a-flat", "b-flat"], ["y"], axis=1)
    assert "Slice" in rewritten(model(conv("x", "a"), pool, *flat, total))


def test_what_others_read_is_there_too() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["b"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])  # of an input
    relu, more = helper.make_node("Relu", ["a"], ["d"]), conv("b", "c")
    total = helper.make_node("Sum", ["a", "c", "d"], ["y"])
    types = rewritten(model(conv("x", "a"), pool, more, relu, total))
    assert types.count("ReorderOutput") == 3


def test_two_convolutions_share_what_is_not_theirs() -> None:
    before = model(conv("x", "a"), conv("x", "b"), helper.make_node("Add", ["a", "b"], ["y"]))
    types = rewritten(before)
    assert types.count("ReorderInput") == 1
    assert types.count("ReorderOutput") == 2


def test_weights_that_another_layer_reads_stay() -> None:
    other = conv("x", "b", pads=[2, 2, 2, 2], dilations=[2, 2])
    types = rewritten(model(conv("x", "a"), other, helper.make_node("Add", ["a", "b"], ["y"])))
    assert types.count("Conv") == 6 + 1 + 1


@pytest.mark.parametrize(
    "change",
    [{"strides": [1, 2]}, {"dilations": [1, 2]}, {"auto_pad": "VALID"}],
)
def test_other_convolutions_stay(change: dict[str, Any]) -> None:
    node = conv("x", "y", **change)
    if "auto_pad" in change:
        node.attribute.remove(next(attribute for attribute in node.attribute if attribute.name == "pads"))
    assert rewritten(model(node)) == ["Conv"]


@pytest.mark.parametrize("taps", [(7, 7), (2, 2), (4, 3), (1, 3)])
def test_other_taps_stay(taps: tuple[int, int]) -> None:
    assert rewritten(model(conv("x", "y", kernel_shape=taps, pads=[taps[0] // 2, taps[1] // 2] * 2), taps=taps)) == [
        "Conv"
    ]


def test_parts_of_blocks_stay() -> None:
    assert rewritten(model(conv("x", "y", group=8), group=8)) == ["Conv"]


@pytest.mark.parametrize("taps", [3, 5])
def test_matrices(taps: int) -> None:
    inputs, kernel, output = (matrix.astype(np.float64) for matrix in winograd_matrices(4, taps))
    d, w = RANDOM.standard_normal(taps + 3), RANDOM.standard_normal(taps)
    np.testing.assert_allclose(output @ ((kernel @ w) * (inputs @ d)), np.correlate(d, w), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "group, outputs, channels, taps, extent, wide, narrow",
    [
        (1, 256, 256, 3, 56, "rows", "tiles"),  # VGG-16
        (1, 512, 512, 3, 14, "rows", "tiles"),
        (1, 64, 64, 3, 224, None, None),
        (2, 128, 48, 5, 27, "rows", "rows"),  # CaffeNet
        (2, 128, 192, 3, 13, None, None),
        (1, 128, 128, 3, 28, None, None),  # ResNet-50
        (1, 256, 256, 3, 14, None, None),
        (1, 192, 64, 3, 56, None, None),  # GoogLeNet
        (1, 512, 512, 3, 1, None, None),
    ],
)
def test_where_it_pays(
    group: int, outputs: int, channels: int, taps: int, extent: int, wide: str | None, narrow: str | None
) -> None:
    """By the blocks of AVX-512 and of AVX2."""
    c = Convolution(group, outputs, channels, (taps, taps), extent, extent, (taps // 2,) * 4)
    assert (best_form(c, 16), best_form(c, 8)) == (wide, narrow)
