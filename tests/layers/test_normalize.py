"""Normalize on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import FORKS, build, check_layer, run_fork_golden

X = np.random.default_rng(5).standard_normal((2, 3, 4, 5), dtype=np.float32)
SCALES = np.array([0.5, -2, 3], np.float32)


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "Normalize" bottom: "b0" top: "t0" norm_param {{ {param} }} }}'


def loop(x: np.ndarray, scale: np.ndarray, across_spatial: bool, eps: float = 1e-10) -> np.ndarray:
    y = np.empty_like(x)
    scales = np.broadcast_to(scale, x.shape[1:2])
    for n in range(len(x)):
        for place in np.ndindex(*x.shape[2:]):
            values = x[n] if across_spatial else x[(n, slice(None), *place)]
            norm = np.sqrt((values.astype(np.float64) ** 2).sum() + eps)
            for c in range(x.shape[1]):
                y[(n, c, *place)] = x[(n, c, *place)] / norm * scales[c]
    return y


@pytest.mark.parametrize("name", sorted(path.stem for path in FORKS.glob("normalize*.prototxt")))
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


def test_value_by_hand() -> None:
    x = np.array([3, 0, 4, 2], np.float32).reshape(1, 2, 1, 2)  # norms of pixels: 5 and 2
    want = np.array([1.2, 0, 1.6, 2], np.float32).reshape(1, 2, 1, 2)
    net = check_layer(layer("across_spatial: false"), [x], [np.float32(2)], expect=lambda x, scale: want)
    assert net.params["l"][0].shape == ()


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 3, 2), (5, 3)])
def test_against_a_loop(across: bool, shape: tuple[int, ...]) -> None:
    x = X.reshape(-1)[: np.prod(shape)].reshape(shape)
    flag = str(across).lower()
    check_layer(
        layer(f"across_spatial: {flag} eps: 0.01"),
        [x],
        [np.float32(1.5)],
        expect=lambda x, scale: loop(x, scale, across, 0.01),
    )
    check_layer(
        layer(f"across_spatial: {flag} channel_shared: false"),
        [x],
        [SCALES],
        expect=lambda x, scale: loop(x, scale, across),
        gradient=False,  # the fork's is not the derivative: see below
    )


def test_the_gradient_with_a_scale_for_each_channel_leaves_the_scale_out_of_the_sum() -> None:
    net = build(layer("across_spatial: false channel_shared: false"), X.shape)
    net.blobs["b0"].data[...] = X
    net.params["l"][0].data[...] = SCALES
    dy = np.random.default_rng(6).standard_normal(X.shape, dtype=np.float32)
    net.forward()
    net.blobs["t0"].diff[...] = dy
    net.backward()
    norm = np.sqrt((X**2).sum(1, keepdims=True))
    want = SCALES[:, None, None] * (dy - X * (X * dy).sum(1, keepdims=True) / norm**2) / norm
    np.testing.assert_allclose(net.blobs["b0"].diff, want, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(net.params["l"][0].diff, (X / norm * dy).sum((0, 2, 3)), rtol=1e-4)


def test_a_scale_of_zero_learns() -> None:
    net = build(layer('scale_filler { type: "constant" value: 0 }'), X.shape)
    net.blobs["b0"].data[...] = X
    net.forward()
    net.blobs["t0"].diff[...] = 1
    net.backward()
    want = (X / np.sqrt((X**2).sum((1, 2, 3), keepdims=True))).sum()
    np.testing.assert_allclose(net.params["l"][0].diff, want, rtol=1e-4)


def test_the_scale_starts_as_its_filler_says() -> None:
    net = build(layer('channel_shared: false scale_filler { type: "constant" value: 20 }'), X.shape)
    np.testing.assert_array_equal(net.params["l"][0].data, [20, 20, 20])
    assert build(layer(""), X.shape).params["l"][0].data == 1


def test_zeros_stay_zeros() -> None:
    check_layer(layer(""), [np.zeros((1, 2, 3, 4), np.float32)], expect=lambda x, *_: x, gradient=False)


def test_bad_inputs() -> None:
    with pytest.raises(ShapeError, match=r"Number of axes of bottom blob must be >=2, and at most 4. Got shape \(7,\)"):
        build(layer(""), (7,))
    net = build(layer("channel_shared: false"), X.shape)
    net.blobs["b0"].reshape(2, 4, 4, 5)
    with pytest.raises(ShapeError, match="Scale size is inconsistent with prototxt config"):
        net.reshape()
