from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import CaffeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs


def clip(low: float, high: float) -> str:
    return f'layer {{ name: "l" type: "Clip" bottom: "b0" top: "t0" clip_param {{ min: {low} max: {high} }} }}'


def test_golden() -> None:
    assert run_golden("clip") == ["torch", "onnxruntime"]


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.7), (0.7, -0.5), (0, 0)])
def test_against_numpy(low: float, high: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    check_layer(clip(low, high), [x], expect=lambda x: np.maximum(np.float32(low), np.minimum(x, np.float32(high))))


def test_the_gradient_passes_at_the_bounds() -> None:
    (diff,) = bottom_diffs(clip(-1, 2), [np.float32([-1.5, -1, 0, 2, 2.5])], [np.float32([3, 4, 5, 6, 7])])
    np.testing.assert_array_equal(diff, [0, 4, 5, 6, 0])


def test_min_and_max_are_required() -> None:
    with pytest.raises(CaffeError, match="max"):
        build('layer { name: "l" type: "Clip" bottom: "b0" top: "t0" clip_param { min: 1 } }', (2, 3))
    with pytest.raises(CaffeError, match="clip_param needs min and max"):
        build('layer { name: "l" type: "Clip" bottom: "b0" top: "t0" }', (2, 3))
