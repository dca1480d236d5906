"""L2Normalize on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build, check_layer

LAYER = 'layer { name: "l" type: "L2Normalize" bottom: "b0" top: "t0" }'


def loop(x: np.ndarray) -> np.ndarray:
    return np.stack([item / np.sqrt((item.astype(np.float64) ** 2).sum()) for item in x])


def test_value_by_hand() -> None:
    x = np.array([[3, 4], [0, -2]], np.float32)
    check_layer(LAYER, [x], expect=lambda x: np.array([[0.6, 0.8], [0, -1]], np.float32))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 2), (4, 7)])
def test_against_a_loop(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    check_layer(LAYER, [x], expect=loop)


def test_an_item_of_zeros_stays_one() -> None:
    check_layer(LAYER, [np.zeros((2, 3), np.float32)], expect=lambda x: x, gradient=False)


def test_bad_input() -> None:
    with pytest.raises(ShapeError, match=r"Number of axes of bottom blob must be >=2. Got shape \(7,\)"):
        build(LAYER, (7,))
