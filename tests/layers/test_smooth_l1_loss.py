"""SmoothL1Loss: three forks' answers, what decides between them, the gradient, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from pycaffe.net import TEST, Net
from pycaffe.proto.prototxt import parse_net
from tests.layers.case import build, check_layer, run_fork_golden

SHAPE = (2, 3, 5, 7)


def layer(bottoms: int = 2, more: str = "", tops: int = 1) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms)) + "".join(f' top: "t{i}"' for i in range(tops))
    return f'layer {{ name: "l" type: "SmoothL1Loss" {names} {more} }}'


def bottoms(count: int, shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    generator = np.random.default_rng(11)
    return [generator.standard_normal(shape, dtype=np.float32) for _ in range(count)]


def smooth(difference: np.ndarray, sigma: float = 1.0) -> np.ndarray:
    size, square = np.abs(difference.astype(np.float64)), sigma * sigma
    return np.where(size < 1 / square, 0.5 * square * size * size, size - 0.5 / square)


def in_dialect(dialect: str, text: str, count: int) -> Net:
    inputs = "".join(
        f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ dim: 2 dim: 3 dim: 5 dim: 7 }} }} }}'
        for i in range(count)
    )
    return Net(parse_net(f"force_backward: true {inputs} {text}", "test.prototxt"), TEST, dialect=dialect)


@pytest.mark.parametrize(
    "name",
    [f"smoothl1loss_{i}" for i in range(3)]
    + [f"smoothl1loss_yolo_{i}" for i in range(3)]
    + [f"smoothl1loss_rfcn_{i}" for i in range(7)]
    + [f"smoothl1loss_sigma_{i}" for i in range(5)],
)
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("more", "divisor", "sigma"),
    [
        ("", 2, 1.0),
        ("smooth_l1_loss_param { sigma: 3 }", 2, 3.0),
        ("loss_param { normalization: VALID }", 2 * 35, 1.0),
        ("loss_param { normalize: false }", 2, 1.0),
        ("loss_param { normalization: NONE }", 1, 1.0),
        ("loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 8 }", 8, 1.0),
        ("loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 0.5 }", 1, 1.0),
    ],
)
def test_parameters_decide(more: str, divisor: float, sigma: float) -> None:
    check_layer(layer(2, more), bottoms(2), expect=lambda a, b: np.asarray(smooth(a - b, sigma).sum() / divisor))


@pytest.mark.parametrize(("dialect", "divisor"), [("ssd", 2), ("yolo", 2), ("segnet", 2), ("rfcn", 70), ("frcnn", 2)])
def test_else_the_dialect_does(dialect: str, divisor: float) -> None:
    a, b = bottoms(2)
    net = in_dialect(dialect, layer(), 2)
    net.blobs["b0"].data[...], net.blobs["b1"].data[...] = a, b
    assert net.forward()["t0"] == pytest.approx(smooth(a - b).sum() / divisor, rel=1e-5)


def test_r_fcn_ignores_sigma() -> None:
    a, b = bottoms(2)
    net = in_dialect("rfcn", layer(2, "smooth_l1_loss_param { sigma: 3 }"), 2)
    net.blobs["b0"].data[...], net.blobs["b1"].data[...] = a, b
    assert net.forward()["t0"] == pytest.approx(smooth(a - b).sum() / 70, rel=1e-5)


def test_both_weights_are_faster_r_cnns() -> None:
    def expect(a: np.ndarray, b: np.ndarray, inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
        return np.asarray((outside * smooth(inside * (a - b), 3.0)).sum() / 2)

    check_layer(layer(4, "smooth_l1_loss_param { sigma: 3 }"), bottoms(4), expect=expect)


def test_a_second_top_is_r_fcns() -> None:
    def expect(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
        errors = smooth(weight * (a - b))
        return [np.asarray(errors.sum() / 70), errors.sum(1, keepdims=True)]

    check_layer(layer(3, tops=2), bottoms(3), expect=expect, gradient=False)


def test_a_single_weight_is_not_in_the_gradient() -> None:
    net = build(layer(3), (1, 2), (1, 2), (1, 2), engine="torch")
    for name, value in (("b0", [[0.5, 4]]), ("b1", [[0, 0]]), ("b2", [[0.5, 2]])):
        net.blobs[name].data[...] = value
    assert net.forward()["t0"] == pytest.approx(0.25**2 / 2 + 7.5)
    net.backward()
    assert net.blobs["b0"].diff.tolist() == [[0.25, 1]]
    assert net.blobs["b1"].diff.tolist() == [[-0.25, -1]]
    assert not net.blobs["b2"].diff.any()


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match=r"channels.* Inputs must have the same dimension.* \(2, 4, 5, 7\)"):
        build(layer(), SHAPE, (2, 4, 5, 7))
    with pytest.raises(ShapeError, match="same first dimension"):
        build(layer(), SHAPE, (3, 3, 5, 7))
    with pytest.raises(LayerError, match="sigma must be a number other than 0"):
        build(layer(2, "smooth_l1_loss_param { sigma: 0 }"), SHAPE, SHAPE)
    with pytest.raises(LayerError, match="must specify both inside and outside weights"):
        in_dialect("frcnn", layer(3), 3)
    with pytest.raises(LayerError, match="SmoothL1Loss has one top"):
        in_dialect("frcnn", layer(2, tops=2), 2)
