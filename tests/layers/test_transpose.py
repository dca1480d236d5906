from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(*dim: int, top: str = "t0") -> str:
    dims = " ".join(f"dim: {axis}" for axis in dim)
    return f'layer {{ name: "l" type: "Transpose" bottom: "b0" top: "{top}" transpose_param {{ {dims} }} }}'


@pytest.mark.parametrize("dim", [(0, 1, 2, 3), (2, 0, 3, 1), (3, 2, 1, 0), (2, 0, 1), (1, 0), (0,)])
def test_against_numpy(dim: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5)[: len(dim)])
    check_layer(layer(*dim), [x], expect=lambda x: x.transpose(dim))


def test_by_hand() -> None:
    net = build(layer(1, 0), (2, 3))
    net.blobs["b0"].data[...] = [[0, 1, 2], [3, 4, 5]]
    net.forward()
    assert net.blobs["t0"].data.tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("dim", [(), (0, 1, 2), (0, 1, 2, 2), (0, 1, 2, 4), (0, 1, 2, -1)])
def test_dim_names_each_axis_once(dim: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the dimensions of the top blob and bottom blob must be equal"):
        build(layer(*dim), (2, 3, 4, 5))


def test_not_in_place() -> None:
    with pytest.raises(LayerError, match="Transpose Layer does not allow in-place computation"):
        build(layer(1, 0, top="b0"), (3, 3))
