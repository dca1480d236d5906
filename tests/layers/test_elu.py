from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import check_layer, run_golden
from tests.layers.diffs import bottom_diffs


def elu(alpha: float) -> str:
    return f'layer {{ name: "l" type: "ELU" bottom: "b0" top: "t0" elu_param {{ alpha: {alpha} }} }}'


def test_golden() -> None:
    assert run_golden("elu") == ["torch", "onnxruntime"]


@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_against_numpy(alpha: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    check_layer(elu(alpha), [x], expect=lambda x: np.where(x > 0, x, np.float32(alpha) * np.expm1(x)))


def test_the_gradient_at_zero_is_alpha() -> None:
    (diff,) = bottom_diffs(elu(0.25), [np.float32([0, 2])], [np.float32([8, 8])])
    np.testing.assert_array_equal(diff, [2, 8])
