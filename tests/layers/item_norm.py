"""What the tests of L2Norm, L2Normalization and L2Normalize share: one layer under three names."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build, check_layer


def loop(x: np.ndarray) -> np.ndarray:
    return np.stack([item / np.sqrt((item.astype(np.float64) ** 2).sum()) for item in x])


class ItemNormTests:
    """Subclasses name the layer type."""

    type: ClassVar[str]

    @property
    def layer(self) -> str:
        return f'layer {{ name: "l" type: "{self.type}" bottom: "b0" top: "t0" }}'

    def test_value_by_hand(self) -> None:
        x = np.array([[3, 4], [0, -2]], np.float32)
        check_layer(self.layer, [x], expect=lambda x: np.array([[0.6, 0.8], [0, -1]], np.float32))

    @pytest.mark.parametrize("shape", [(2, 3, 4, 5), (3, 4, 2), (4, 7)])
    def test_against_a_loop(self, shape: tuple[int, ...]) -> None:
        x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
        check_layer(self.layer, [x], expect=loop)

    def test_an_item_of_zeros_stays_one(self) -> None:
        check_layer(self.layer, [np.zeros((2, 3), np.float32)], expect=lambda x: x, gradient=False)

    def test_bad_input(self) -> None:
        with pytest.raises(ShapeError, match=r"Number of axes of bottom blob must be >=2. Got shape \(7,\)"):
            build(self.layer, (7,))
