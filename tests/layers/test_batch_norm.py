"""BatchNorm: batch statistics and their moving averages in TRAIN, the averages in TEST."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TEST, TRAIN, Net
from tests.layers.case import build, check_gradient, check_layer, run_golden


def layer(param: str = "", specs: str = "", top: str = "t0") -> str:
    return f'layer {{ name: "l" type: "BatchNorm" bottom: "b0" top: "{top}" {specs} batch_norm_param {{ {param} }} }}'


def channelwise(values, x):
    return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))


def normalized(x, mean, variance, eps=1e-5):
    return (x - channelwise(mean, x)) / np.sqrt(channelwise(variance, x) + eps)


def batch_statistics(x):
    axes = tuple(a for a in range(x.ndim) if a != 1)
    return x.mean(axes, dtype=np.float64), x.var(axes, dtype=np.float64)


def check_statistics(text: str, bottom: np.ndarray, params: list[np.ndarray], expect, **options) -> Net:
    """check_layer, with a gradient for the bottom alone: statistics are not learned."""
    net = check_layer(text, [bottom], params, expect=expect, gradient=False, **options)
    layer = net._graph.nodes[net._layer_names.index("l")].layer
    layer.param_propagate_down = [False] * 3
    check_gradient(net)
    return net


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(14).standard_normal(shape, dtype=np.float32) * 2 + 3


@pytest.mark.parametrize("name", ["batchnorm_scale", "batchnorm_test", "batchnorm_train"])
def test_golden(name: str) -> None:
    assert run_golden(name) == (["torch"] if name.endswith("train") else ["torch", "onnxruntime"])


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_averages_are_sums_divided_by_the_scale_factor(shape: tuple[int, ...]) -> None:
    check_statistics(
        layer(),
        normal(*shape),
        [normal(3), normal(3) ** 2, np.array([2.5], np.float32)],
        expect=lambda x, mean, variance, factor: normalized(x, mean / factor, variance / factor),
    )


def test_a_scale_factor_of_zero_makes_mean_and_variance_zero() -> None:
    check_statistics(
        layer("eps: 0.25"),
        normal(2, 3, 4, 5),
        [normal(3), normal(3), np.zeros(1, np.float32)],
        expect=lambda x, *_: x / 0.5,
    )


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5), (2, 3, 2, 4, 5)])
def test_train_moves_the_averages(shape: tuple[int, ...]) -> None:
    net = build(layer("moving_average_fraction: 0.9 eps: 0.001"), shape, phase=TRAIN)
    x, sums = normal(*shape), [normal(3), normal(3), np.array([4], np.float32)]
    net.blobs["b0"].data[...] = x
    for blob, value in zip(net.params["l"], sums):
        blob.data[...] = value
    mean, variance = batch_statistics(x)
    count = x.size // 3
    want = [np.array(value) for value in sums]
    for _ in range(2):
        net.forward()
        np.testing.assert_allclose(net.blobs["t0"].data, normalized(x, mean, variance, 0.001), rtol=1e-4, atol=1e-5)
        gains = (mean, variance * count / (count - 1), 1)
        want = [0.9 * value + gain for value, gain in zip(want, gains)]
        for blob, value in zip(net.params["l"], want):
            np.testing.assert_allclose(blob.data, value, rtol=1e-5)


def test_backward_goes_through_the_batch_statistics_and_moves_no_average() -> None:
    net = build(layer(), (3, 2, 2, 4), phase=TRAIN)
    net.blobs["b0"].data[...] = normal(3, 2, 2, 4)
    net.forward()
    averages = [blob.data.copy() for blob in net.params["l"]]
    net.blobs["t0"].diff[...] = 1.5
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff, 0, atol=1e-5)  # a constant diff changes no normalized value
    for blob, value in zip(net.params["l"], averages):
        assert np.array_equal(blob.data, value)
        assert not blob.diff.any()
    check_gradient(net)


def test_in_place_in_train() -> None:
    net = build(layer(top="b0"), (3, 2, 2, 4), phase=TRAIN)
    x = normal(3, 2, 2, 4)
    net.blobs["b0"].data[...] = x
    net.forward()
    np.testing.assert_allclose(net.blobs["b0"].data, normalized(x, *batch_statistics(x)), rtol=1e-4, atol=1e-5)
    assert net.params["l"][2].data.tolist() == [1]


def test_use_global_stats_overrides_the_phase() -> None:
    params = [normal(3), normal(3) ** 2, np.ones(1, np.float32)]
    check_statistics(
        layer("use_global_stats: true"),
        normal(2, 3, 4, 5),
        params,
        expect=lambda x, mean, variance, factor: normalized(x, mean, variance),
        phase=TRAIN,
    )
    net = check_statistics(
        layer("use_global_stats: false"),
        normal(2, 3, 4, 5),
        params,
        expect=lambda x, *_: normalized(x, *batch_statistics(x)),
        phase=TEST,
        lowers=False,
    )
    assert net.params["l"][2].data[0] == pytest.approx(1.999)


def test_one_value_a_channel() -> None:
    net = build(layer("moving_average_fraction: 0.5"), (1, 3), phase=TRAIN)
    net.blobs["b0"].data[...] = [[4, 5, 6]]
    net.forward()
    assert not net.blobs["t0"].data.any()
    assert [blob.data.tolist() for blob in net.params["l"]] == [[4, 5, 6], [0, 0, 0], [1]]


def test_bad_input() -> None:
    with pytest.raises(
        LayerError, match=r"Cannot configure batch normalization statistics as layer parameters.*1.0 for blob 1"
    ):
        build(layer(specs="param { lr_mult: 0 } param { lr_mult: 1 }"), (2, 3, 4, 5))
    with pytest.raises(LayerError, match="axis 1 out of range for a 1-D Blob"):
        build(layer(), (3,))
    net = build(layer(specs="param { lr_mult: 0 }"), (2, 3, 4, 5))
    net.blobs["b0"].reshape(2, 4, 4, 5)
    with pytest.raises(ShapeError, match=r"shape\(1\) == channels_. Expected 3 channels"):
        net.reshape()


NVCAFFE = "scale_filler { value: 1.5 } bias_filler { value: 0.25 }"


def test_nvcaffes_scale_and_bias() -> None:
    values = [normal(3), normal(3) ** 2, np.ones(1, np.float32), normal(3), normal(3)]

    def expect(x, mean, variance, _, scale, bias):
        return normalized(x, mean, variance) * channelwise(scale, x) + channelwise(bias, x)

    net = check_layer(layer("scale_bias: true eps: 0"), [normal(2, 3, 4, 5)], values, expect=expect, gradient=False)
    own = net._graph.nodes[net._layer_names.index("l")].layer
    own.param_propagate_down = [False] * 3 + [True] * 2
    check_gradient(net)
    assert [blob.data.tolist() for blob in build(layer("scale_bias: true"), (2, 3, 4, 5)).params["l"]][2:] == [
        [1],
        [1, 1, 1],
        [0, 0, 0],
    ]


def test_nvcaffes_averages_start_with_the_batch() -> None:
    net = build(layer(f"{NVCAFFE} moving_average_fraction: 0.75", "param { lr_mult: 1 }"), (2, 3, 4, 5), phase=TRAIN)
    batches = [np.random.default_rng(seed).standard_normal((2, 3, 4, 5)) + seed for seed in range(3)]
    for batch in batches:
        net.blobs["b0"].data[...] = batch
        net.forward()
    mean, variance = batch_statistics(batches[2])
    np.testing.assert_allclose(net.blobs["t0"].data, normalized(batches[2], mean, variance) * 1.5 + 0.25, rtol=1e-4)
    before = batch_statistics(batches[1])
    for blob, old, new in zip(net.params["l"], before, (mean, variance)):
        np.testing.assert_allclose(blob.data, 0.75 * old + 0.25 * new, rtol=1e-5)
    own = net._graph.nodes[net._layer_names.index("l")].layer
    assert [spec.lr_mult for spec in own.layer_param.param] == [0, 0, 0]
    assert own.state() == {"forwards": 3}
    other = build(layer(NVCAFFE), (2, 3, 4, 5), phase=TRAIN)._graph.nodes[-1].layer
    other.restore({"forwards": 3})
    assert other.state() == {"forwards": 3}
