from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "SUM": lambda rows: rows.sum(axis=1),
    "ASUM": lambda rows: np.abs(rows).sum(axis=1),
    "SUMSQ": lambda rows: (rows**2).sum(axis=1),
    "MEAN": lambda rows: rows.sum(axis=1) / rows.shape[1],
}


def reduction(param: str) -> str:
    return f'layer {{ name: "l" type: "Reduction" bottom: "b0" top: "t0" reduction_param {{ {param} }} }}'


@pytest.mark.parametrize("case", [f"reduction_{i}" for i in range(5)])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize(("axis", "kept"), [(0, ()), (1, (2,)), (2, (2, 3)), (-1, (2, 3, 5))])
@pytest.mark.parametrize("coeff", [1, -0.5])
def test_against_numpy(operation: str, axis: int, kept: tuple[int, ...], coeff: float) -> None:
    def expect(x: np.ndarray) -> np.ndarray:
        rows = x.astype(np.float64).reshape(math.prod(kept), -1)
        return np.asarray(coeff * OPERATIONS[operation](rows), np.float32).reshape(kept)

    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    check_layer(reduction(f"operation: {operation} axis: {axis} coeff: {coeff}"), [x], expect=expect)


def test_the_gradient_of_the_absolute_value_at_zero_is_zero() -> None:
    (diff,) = bottom_diffs(reduction("operation: ASUM coeff: 2"), [np.float32([-3, 0, 4])], [np.float32(5)])
    np.testing.assert_array_equal(diff, [-10, 0, 10])


def test_axis_out_of_range() -> None:
    with pytest.raises(LayerError, match="axis 4 out of range"):
        build(reduction("axis: 4"), (2, 3, 5, 4))
