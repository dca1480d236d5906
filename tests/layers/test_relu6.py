from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import build, check_layer, run_fork_golden


@pytest.mark.parametrize("name", ["relu6_0", "relu6_1", "relu6_inplace"])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "slope"),
    [("", 0), ("relu6_param { negative_slope: 0.25 }", 0.25), ("relu6_param { negative_slope: -2 }", -2)],
)
def test_against_numpy(param: str, slope: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 6
    text = f'layer {{ name: "l" type: "ReLU6" bottom: "b0" top: "t0" {param} }}'
    check_layer(text, [x], expect=lambda x: np.minimum(np.maximum(x, 0) + slope * np.minimum(x, 0), 6))


@pytest.mark.parametrize(("slope", "left"), [(0, 0), (0.5, 0.5)])
def test_by_hand_with_the_gradient_at_both_kinks(slope: float, left: float) -> None:
    net = build(
        f'layer {{ name: "l" type: "ReLU6" bottom: "b0" top: "t0" relu6_param {{ negative_slope: {slope} }} }}', (6,)
    )
    net.blobs["b0"].data[...] = [-2, 0, 3, 6, 7, np.nan]
    net.forward()
    assert net.blobs["t0"].data[:5].tolist() == [-2 * slope, 0, 3, 6, 6]
    assert np.isnan(net.blobs["t0"].data[5])
    net.blobs["t0"].diff[...] = 1
    net.backward()
    assert net.blobs["b0"].diff[:5].tolist() == [left, left, 1, 0, 0]
