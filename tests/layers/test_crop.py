"""Crop on both engines."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "Crop" bottom: "b0" bottom: "b1" top: "t0" crop_param {{ {param} }} }}'


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(19).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["crop_0", "crop_1"])
def test_golden(name: str) -> None:
    assert run_golden(name) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "size", "where"),
    [
        ("", (9, 9, 4, 5), np.s_[:, :, :4, :5]),
        ("offset: 2", (9, 9, 4, 5), np.s_[:, :, 2:6, 2:7]),
        ("offset: 2 offset: 1", (9, 9, 4, 5), np.s_[:, :, 2:6, 1:6]),
        ("axis: 0 offset: 1 offset: 0 offset: 2 offset: 3", (2, 4, 1, 5), np.s_[1:3, :, 2:3, 3:8]),
        ("axis: -1 offset: 3", (1, 1, 1, 2), np.s_[:, :, :, 3:5]),
        ("axis: 3", (1, 1, 1, 8), np.s_[:, :, :, :]),
    ],
)
def test_where_it_cuts(param: str, size: tuple[int, ...], where) -> None:
    check_layer(layer(param), [normal(3, 4, 6, 8), normal(*size)], expect=lambda x, _: x[where])


def test_gradient_is_zero_around_the_piece() -> None:
    net = build(layer("offset: 1"), (1, 1, 3, 4), (1, 1, 1, 2), engine="torch")
    net.forward()
    net.blobs["t0"].diff[...] = [[[[5, 6]]]]
    net.backward()
    assert net.blobs["b0"].diff.tolist() == [[[[0, 0, 0, 0], [0, 5, 6, 0], [0, 0, 0, 0]]]]
    assert not net.blobs["b1"].diff.any()


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="number of offset values specified must be equal to the number of dimensions"):
        build(layer("offset: 1 offset: 1 offset: 1"), (3, 4, 6, 8), (3, 4, 2, 2))
    with pytest.raises(LayerError, match="axis 4 out of range"):
        build(layer("axis: 4"), (3, 4, 6, 8), (3, 4, 2, 2))
    with pytest.raises(ShapeError, match="the crop for dimension 3 is out-of-bounds with size 5 and offset 4"):
        build(layer("offset: 1 offset: 4"), (3, 4, 6, 8), (3, 4, 2, 5))
    with pytest.raises(ShapeError, match="axis 3 out of range for 2-D Blob"):
        build(layer(""), (3, 4, 6, 8), (3, 4))
