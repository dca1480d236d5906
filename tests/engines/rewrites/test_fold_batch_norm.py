"""BatchNorm and Scale disappear into the convolution before them, and numbers stay."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pycaffe.engines.rewrites.fold_batch_norm import fold_batch_norms
from pycaffe.engines.segment import Segment, lower_segment
from pycaffe.engines.session import create_session
from pycaffe.net import Net
from tests.net.nets import data, fill_params, layer, net_of, normal

FILL = 'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "gaussian" std: 1 }'
CONV = layer(
    "conv", "Convolution", "data", rest=f"convolution_param {{ num_output: 6 kernel_size: 3 group: 3 {FILL} }}"
)
NORM = layer("norm", "BatchNorm", "conv", "conv")
SCALE = layer("scale", "Scale", "conv", "conv", rest="scale_param { bias_term: true }")
RELU = layer("relu", "ReLU", "conv", "conv")
INPUT = data(2, 3, 7, 9)


def filled(text: str, factor: float = 0.7) -> Net:
    net = net_of(text)
    fill_params(net)
    for name, params in net.params.items():
        if name.startswith("norm"):
            params[1].data[...] = np.abs(params[1].data) + 0.5
            params[2].data[...] = factor
    return net


def lowered(net: Net, *outputs: str) -> tuple[Segment, dict[str, np.ndarray]]:
    wanted = {net._blob_names.index(name) for name in outputs or net.outputs}
    segment = lower_segment(net._graph, 0, len(net._graph.nodes) - 1, wanted)
    return segment, {name: storage.array().reshape(shape) for name, storage, shape in segment.parameters}


def folded(text: str, *outputs: str, factor: float = 0.7) -> Counter[str]:
    """The types of nodes after folding; checks the session's answers against the torch engine's."""
    net = filled(text, factor)
    segment, arrays = lowered(net, *outputs)
    values = fold_batch_norms(segment.model, arrays)
    outside = {t.name for t in segment.model.graph.initializer if t.external_data}
    assert values.keys() == outside, "exactly the values that the model still reads"
    types = Counter(node.op_type for node in segment.model.graph.node if node.op_type != "Identity")

    x = normal(*net.blobs["data"].shape)
    segment, arrays = lowered(net, *outputs)
    got = create_session(segment, list(arrays.values()), threads=1).run(None, {"blob/data": x})
    exact = net_of(text, engine="torch")
    exact.share_with(net)
    exact.blobs["data"].data[...] = x
    exact.forward()
    for (_, i), values_got in zip(segment.outputs, got):
        want = exact.blobs[net._blob_names[i]].data
        np.testing.assert_allclose(values_got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
    return types


def test_batch_norm_and_scale_become_weights() -> None:
    assert folded(INPUT + CONV + NORM + SCALE + RELU) == {"Conv": 1, "Relu": 1}


def test_a_convolution_without_bias_gets_one() -> None:
    conv = CONV.replace("group: 3", "group: 3 bias_term: false")
    assert folded(INPUT + conv + NORM + RELU) == {"Conv": 1, "Relu": 1}


def test_a_bias_layer_is_folded() -> None:
    assert folded(INPUT + CONV + layer("bias", "Bias", "conv", "conv") + RELU) == {"Conv": 1, "Relu": 1}


def test_statistics_whose_factor_is_zero_count_as_zero() -> None:
    assert folded(INPUT + CONV + NORM, factor=0) == {"Conv": 1}


def test_what_somebody_reads_before_batch_norm_is_not_folded() -> None:
    apart = NORM.replace('top: "conv"', 'top: "normed"')
    assert "normed" in apart
    types = folded(INPUT + CONV + apart, "conv", "normed")
    assert types["Conv"] == types["BatchNormalization"] == 1


def test_two_layers_with_the_same_weights_are_folded_each_for_itself() -> None:
    shared = 'param { name: "w" } param { name: "b" }'
    first = layer(
        "conv", "Convolution", "data", rest=shared + f"convolution_param {{ num_output: 6 kernel_size: 3 {FILL} }}"
    )
    second = first.replace('"conv"', '"conv2"')
    norms = NORM + NORM.replace('"norm"', '"norm2"').replace('"conv"', '"conv2"')
    assert folded(INPUT + first + second + norms) == {"Conv": 2}


@pytest.mark.parametrize("axes", ["axis: 2 num_axes: 1", "axis: 1 num_axes: -1"])
def test_a_scale_by_position_stays(axes: str) -> None:
    scale = layer("scale", "Scale", "conv", "conv", rest=f"scale_param {{ {axes} }}")
    assert folded(INPUT + CONV + scale)["Mul"] == 1


def test_a_sum_with_another_blob_stays() -> None:
    other = layer("sum", "Eltwise", "conv", "sum", rest='bottom: "conv"')
    assert folded(INPUT + CONV + NORM + other)["BatchNormalization"] == 0


def test_new_weights_are_made_when_they_are_asked_for() -> None:
    net = filled(INPUT + CONV + NORM)
    segment, arrays = lowered(net)
    values = fold_batch_norms(segment.model, arrays)
    (name,) = (name for name in values if name.endswith("/weight"))
    before = values[name]()
    arrays["conv/param0"] *= 2
    np.testing.assert_allclose(values[name](), 2 * before, rtol=1e-6)
