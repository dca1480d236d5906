from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer


def layer(*axes: int, top: str = "t0") -> str:
    axis = " ".join(f"axis: {axis}" for axis in axes)
    return f'layer {{ name: "l" type: "Reverse" bottom: "b0" top: "{top}" reverse_param {{ {axis} }} }}'


@pytest.mark.parametrize("axes", [(), (0,), (1,), (-1,), (1, 3)])
def test_against_numpy(axes: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    check_layer(layer(*axes), [x], expect=lambda x: np.flip(x, axes or (0,)))


def test_by_hand() -> None:
    net = build(layer(0), (3, 1))
    net.blobs["b0"].data[...] = [[1], [2], [3]]
    net.forward()
    assert net.blobs["t0"].data.tolist() == [[3], [2], [1]]


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="axis 4 out of range for a 4-D Blob"):
        build(layer(4), (2, 3, 4, 5))
    with pytest.raises(LayerError, match=r"Reverse names an axis once. Got axis \[1, -3\]"):
        build(layer(1, -3), (2, 3, 4, 5))
    with pytest.raises(LayerError, match="does not allow in-place computation"):
        build(layer(0, top="b0"), (2, 3))
