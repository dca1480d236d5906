from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import check_layer, run_golden
from tests.layers.diffs import bottom_diffs


def relu(slope: float) -> str:
    return f'layer {{ name: "l" type: "ReLU" bottom: "b0" top: "t0" relu_param {{ negative_slope: {slope} }} }}'


@pytest.mark.parametrize("case", ["relu_0", "relu_1", "relu_inplace"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize("slope", [0, 0.1, -0.5, 2])
def test_against_numpy(slope: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    check_layer(relu(slope), [x], expect=lambda x: np.maximum(x, 0) + np.float32(slope) * np.minimum(x, 0))


@pytest.mark.parametrize("slope", [0, 0.25])
def test_the_gradient_at_zero_is_the_slope(slope: float) -> None:
    (diff,) = bottom_diffs(relu(slope), [np.float32([-1, 0, 1])], [np.float32([4, 8, 12])])
    np.testing.assert_array_equal(diff, [4 * slope, 8 * slope, 12])
