"""BN: SegNet's, on the batch or with folded statistics, and the one with running averages."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TEST, TRAIN, Net
from tests.layers.case import build, check_gradient, check_layer, run_fork_golden

RUNNING = "slope_filler { value: 1.5 } bias_filler { value: 0.25 }"


@pytest.mark.parametrize(
    "name", ["default", "inference_test", "inference_train", "learn_test", "learn_train", "relu_conv"]
)
def test_golden(name: str) -> None:
    assert run_fork_golden(f"bn_{name}") == (["torch"] if name.endswith("train") else ["torch", "onnxruntime"])


def layer(param: str, tops: str = 'top: "t0"', specs: str = "") -> str:
    return f'layer {{ name: "l" type: "BN" bottom: "b0" {tops} {specs} bn_param {{ {param} }} }}'


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32) * 2 + 3


def wide(values, x):
    return np.reshape(values, (1, -1) + (1,) * (x.ndim - 2))


def statistics(x):
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    return x.mean(axes, dtype=np.float64), x.var(axes, dtype=np.float64)


def normalized(x, mean, variance, scale, shift, eps):
    return (x - wide(mean, x)) / np.sqrt(wide(variance, x) + eps) * wide(scale, x) + wide(shift, x)


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_learn_takes_the_batch_in_both_phases(shape: tuple[int, ...], phase: int) -> None:
    params = [normal(1, 3, 1, 1), normal(1, 3, 1, 1) - 2]
    check_layer(
        layer("bn_mode: LEARN"),
        [normal(*shape)],
        params,
        expect=lambda x, scale, shift: normalized(x, *statistics(x), scale, shift, 1e-9),
        phase=phase,
    )


def test_learn_also_gives_mean_and_variance() -> None:
    def expect(x, scale, shift):
        mean, variance = statistics(x)
        y = normalized(x, mean, variance, scale, shift, 1e-9)
        return [y, mean.reshape(1, 3, 1, 1), variance.reshape(1, 3, 1, 1)]

    text = layer("scale_filler { value: 1 }", 'top: "t0" top: "t1" top: "t2"')
    check_layer(text, [normal(2, 3, 4, 5)], [normal(1, 3, 1, 1), normal(1, 3, 1, 1)], expect=expect)


def test_inference_is_scale_and_shift() -> None:
    check_layer(
        layer("bn_mode: INFERENCE"),
        [normal(2, 3, 4, 5)],
        [normal(1, 3, 1, 1), normal(1, 3, 1, 1)],
        expect=lambda x, scale, shift: x * scale + shift,
    )


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4, 5)])
@pytest.mark.parametrize(("param", "phase"), [(RUNNING, TEST), (f"{RUNNING} frozen: true", TRAIN)])
def test_running_averages_are_used(shape: tuple[int, ...], param: str, phase: int) -> None:
    values = [normal(1, 3), normal(1, 3) - 2, normal(1, 3), normal(1, 3) ** 2]

    def expect(x, slope, bias, mean, variance):
        return normalized(x, mean, variance, slope, bias, 1e-5)

    net = check_layer(layer(param), [normal(*shape)], values, expect=expect, phase=phase, gradient=False)
    own = net._graph.nodes[net._layer_names.index("l")].layer
    own.param_propagate_down = [phase == TEST] * 2 + [False] * 2  # statistics are not learned, and frozen ones nothing
    check_gradient(net)
    for blob, value in zip(net.params["l"], values):
        assert np.array_equal(blob.data, value)


def run_train(param: str, shape: tuple[int, ...]) -> tuple[Net, np.ndarray]:
    net = build(layer(param), shape, phase=TRAIN)
    x = normal(*shape)
    net.blobs["b0"].data[...] = x
    net.forward()
    return net, x


def test_train_moves_the_averages() -> None:
    net, x = run_train(f"{RUNNING} momentum: 0.8", (2, 3, 4, 5))
    mean, variance = statistics(x)
    np.testing.assert_allclose(
        net.blobs["t0"].data, normalized(x, mean, variance, 1.5 * np.ones(3), 0.25 * np.ones(3), 1e-5), rtol=1e-4
    )
    net.forward()
    np.testing.assert_allclose(net.params["l"][2].data[0], (0.2 + 0.8 * 0.2) * mean, rtol=1e-5)
    np.testing.assert_allclose(net.params["l"][3].data[0], (0.2 + 0.8 * 0.2) * variance, rtol=1e-5)
    averages = [blob.data.copy() for blob in net.params["l"]]
    net.blobs["t0"].diff[...] = np.random.default_rng(4).standard_normal((2, 3, 4, 5))
    net.backward()
    assert all(np.array_equal(blob.data, value) for blob, value in zip(net.params["l"], averages))
    assert [bool(blob.diff.any()) for blob in net.params["l"]] == [True, True, False, False]


def test_frozen_learns_nothing_and_starts_with_a_variance_of_1() -> None:
    net, x = run_train(f"{RUNNING} frozen: true", (2, 3, 4, 5))
    np.testing.assert_allclose(net.blobs["t0"].data, x / np.sqrt(1 + 1e-5) * 1.5 + 0.25, rtol=1e-5)
    net.blobs["t0"].diff[...] = 1
    net.backward()
    assert not any(blob.diff.any() for blob in net.params["l"])
    np.testing.assert_allclose(net.blobs["b0"].diff, 1.5, rtol=1e-4)


def test_one_value_a_channel() -> None:
    net, _ = run_train(RUNNING, (1, 3))
    assert net.blobs["t0"].data.tolist() == [[0.25] * 3]


@pytest.mark.parametrize(("specs", "blobs"), [("", 2), ("param {} param {}", 2), ("param {} param {} param {}", 4)])
def test_without_parameters_the_number_of_param_decides(specs: str, blobs: int) -> None:
    net = build(layer("", specs=specs.replace("{}", "{ lr_mult: 0 }")), (2, 3, 4, 5))
    assert len(net.params["l"]) == blobs


def test_folds_into_a_convolution() -> None:
    text = """layer { name: "c" type: "Convolution" bottom: "b0" top: "c"
                convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }""" + layer(
        RUNNING
    ).replace('"b0"', '"c"')
    tops = []
    for engine in ("torch", "onnxruntime"):
        net = build(text, (2, 3, 5, 6), engine=engine)
        generator = np.random.default_rng(5)
        net.blobs["b0"].data[...] = normal(2, 3, 5, 6)
        for blob in (*net.params["c"], *net.params["l"]):
            blob.data[...] = generator.random(blob.data.shape) + 0.5
        net.forward()
        tops.append(net.blobs["t0"].data.copy())
    np.testing.assert_allclose(*tops, rtol=2e-5)


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"BN takes SegNet's parameters.*Got \['bn_mode', 'frozen'\]"):
        build(layer("bn_mode: LEARN frozen: true"), (2, 3, 4, 5))
    with pytest.raises(LayerError, match=r"mean and variance in SegNet's LEARN mode alone. Got 2 tops"):
        build(layer("bn_mode: INFERENCE", 'top: "t0" top: "t1"'), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"BN's bottom has channels, axis 1. Got shape \(3,\)"):
        build(layer(""), (3,))
    net = build(layer(""), (2, 3, 4, 5))
    net.blobs["b0"].reshape(2, 4, 4, 5)
    with pytest.raises(ShapeError, match=r"the channels may not change. Expected 3"):
        net.reshape()
