from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs


def tile(param: str) -> str:
    return f'layer {{ name: "l" type: "Tile" bottom: "b0" top: "t0" tile_param {{ {param} }} }}'


@pytest.mark.parametrize("case", ["tile_0", "tile_1"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(("param", "axis"), [("", 1), ("axis: 0", 0), ("axis: -2", 2), ("axis: 3", 3)])
def test_against_numpy(param: str, axis: int) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    check_layer(tile(f"{param} tiles: 3"), [x], expect=lambda x: np.concatenate([x, x, x], axis=axis))


def test_the_gradients_of_the_copies_add_up() -> None:
    (diff,) = bottom_diffs(tile("tiles: 2"), [np.zeros((1, 2), np.float32)], [np.float32([[1, 2, 30, 40]])])
    np.testing.assert_array_equal(diff, [[31, 42]])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("", "Number of tiles must be specified"),
        ("tiles: 0", "Number of tiles must be positive. Got 0"),
        ("tiles: 2 axis: 4", "axis 4 out of range"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(tile(param), (2, 3, 5, 4))
