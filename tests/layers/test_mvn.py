"""MVN on both engines; its gradient, which takes eps for zero, against the formula."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from pycaffe.net import TRAIN
from tests.layers.case import build, check_layer, run_golden


def layer(param: str, top: str = "t0") -> str:
    return f'layer {{ name: "l" type: "MVN" bottom: "b0" top: "{top}" mvn_param {{ {param} }} }}'


def mvn(x, axes=(2, 3), variance=True, eps=1e-9):
    x = x.reshape(x.shape + (1,) * (4 - x.ndim))
    centred = x - x.mean(axes, keepdims=True, dtype=np.float64)
    return centred / (np.sqrt((centred**2).mean(axes, keepdims=True)) + eps) if variance else centred


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(17).standard_normal(shape, dtype=np.float32) + 2


@pytest.mark.parametrize("name", ["mvn_0", "mvn_1", "mvn_2"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "options"),
    [
        ("", {}),
        ("across_channels: true", {"axes": (1, 2, 3)}),
        ("normalize_variance: false", {"variance": False}),
        ("normalize_variance: false across_channels: true", {"variance": False, "axes": (1, 2, 3)}),
    ],
)
def test_against_formula(param: str, options) -> None:
    check_layer(layer(param), [normal(2, 3, 4, 5)], expect=lambda x: mvn(x, **options))


@pytest.mark.parametrize("shape", [(2, 3, 7), (4, 6)])
def test_missing_axes_count_as_one(shape: tuple[int, ...]) -> None:
    check_layer(
        layer("across_channels: true eps: 0.5"),
        [normal(*shape)],
        expect=lambda x: mvn(x, (1, 2, 3), eps=0.5),
        gradient=False,
    )


@pytest.mark.parametrize("top", ["t0", "b0"])
def test_gradient_takes_eps_for_zero(top: str) -> None:
    net = build(layer("eps: 0.3", top), (2, 3, 4, 5), phase=TRAIN)
    x, dy = normal(2, 3, 4, 5), np.random.default_rng(18).standard_normal((2, 3, 4, 5)).astype(np.float32)
    net.blobs["b0"].data[...] = x
    net.forward()
    net.blobs[top].diff[...] = dy
    net.backward()
    y = mvn(x, eps=0.3)
    mean = {"axis": (2, 3), "keepdims": True}
    want = (dy - dy.mean(**mean) - y * (dy * y).mean(**mean)) / (x.std((2, 3), keepdims=True) + 0.3)
    np.testing.assert_allclose(net.blobs["b0"].diff, want, rtol=1e-4, atol=1e-5)


def test_a_constant_image_stays_finite() -> None:
    net = build(layer(""), (1, 2, 3, 4), engine="torch")
    net.blobs["b0"].data[...] = 2
    net.forward()
    net.backward()
    assert not net.blobs["t0"].data.any()
    assert np.isfinite(net.blobs["b0"].diff).all()


def test_more_than_four_axes() -> None:
    with pytest.raises(ShapeError, match="Cannot use legacy accessors on Blobs with > 4 axes"):
        build(layer(""), (1, 2, 3, 4, 5))
