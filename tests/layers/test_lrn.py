"""LRN on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "LRN" bottom: "b0" top: "t0" lrn_param {{ {param} }} }}'


def across(x, size, alpha, beta, k):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        around = x[:, max(0, c - size // 2) : c + size // 2 + 1]
        y[:, c] = x[:, c] / (k + alpha / size * (around**2).sum(1)) ** beta
    return y


def within(x, size, alpha, beta):
    y, half = np.empty_like(x), size // 2
    for h, w in np.ndindex(*x.shape[2:]):
        around = x[:, :, max(0, h - half) : h + half + 1, max(0, w - half) : w + half + 1]
        y[:, :, h, w] = x[:, :, h, w] / (1 + alpha / size**2 * (around**2).sum((2, 3))) ** beta
    return y


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(9).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["lrn_0", "lrn_1", "lrn_2"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


def test_value_by_hand() -> None:
    x = np.array([1, 2, 3], np.float32).reshape(1, 3, 1, 1)
    want = x / np.array([1 + 5, 1 + 14, 1 + 13], np.float32).reshape(1, 3, 1, 1)
    check_layer(layer("local_size: 3 alpha: 3 beta: 1"), [x], expect=lambda x: want)


def test_across_channels() -> None:
    check_layer(layer(""), [normal(2, 7, 3, 4)], expect=lambda x: across(x, 5, 1, 0.75, 1))
    check_layer(
        layer("local_size: 3 alpha: 0.1 beta: 0.5 k: 2"),
        [normal(2, 4, 5, 3)],
        expect=lambda x: across(x, 3, 0.1, 0.5, 2),
    )
    # a window wider than the channels
    check_layer(layer("local_size: 9"), [normal(2, 3, 4, 5)], expect=lambda x: across(x, 9, 1, 0.75, 1))


def test_within_channel_ignores_k() -> None:
    check_layer(
        layer("norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.7 k: 5"),
        [normal(2, 3, 4, 5)],
        expect=lambda x: within(x, 3, 0.7, 0.75),
    )
    check_layer(layer("norm_region: WITHIN_CHANNEL"), [normal(2, 3, 4, 6)], expect=lambda x: within(x, 5, 1, 0.75))


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"LRN only supports odd values for local_size. Got 4"):
        build(layer("local_size: 4"), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match="Input must have 4 axes"):
        build(layer(""), (2, 3, 4))
