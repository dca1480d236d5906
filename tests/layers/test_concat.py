from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden


def concat(param: str, bottoms: int = 2) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return f'layer {{ name: "l" type: "Concat" {names} top: "t0" concat_param {{ {param} }} }}'


def blobs(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize("case", ["concat_0", "concat_1", "concat_neg"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "axis", "shapes"),
    [
        ("", 1, [(2, 3, 5, 4), (2, 1, 5, 4), (2, 6, 5, 4)]),
        ("axis: 0", 0, [(2, 3, 5, 4), (7, 3, 5, 4)]),
        ("axis: -2", 2, [(2, 3, 5, 4), (2, 3, 1, 4)]),
        ("concat_dim: 3", 3, [(2, 3, 5, 4), (2, 3, 5, 7)]),
        ("concat_dim: 0", 0, [(2, 3), (4, 3)]),
    ],
)
def test_against_numpy(param: str, axis: int, shapes: list[tuple[int, ...]]) -> None:
    text = concat(param, len(shapes))
    check_layer(text, blobs(*shapes), expect=lambda *bottoms: np.concatenate(bottoms, axis=axis))


def test_one_bottom_is_passed_on() -> None:
    check_layer(concat("", 1), blobs((2, 3, 5, 4)), expect=np.copy)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("axis: 1 concat_dim: 1", "Either axis or concat_dim should be specified; not both."),
        ("concat_dim: 4", r"concat_dim out of range\. Got 4 for a 4-D Blob"),
        ("concat_dim: 4294967295", "casting concat_dim from uint32 to int32 produced negative result"),
        ("axis: 4", "axis 4 out of range"),
        ("axis: -5", "axis -5 out of range"),
    ],
)
def test_bad_axis(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(concat(param), (2, 3, 5, 4), (2, 3, 5, 4))


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"All inputs must have the same #axes\. Got shapes"):
        build(concat(""), (2, 3, 5, 4), (2, 3, 5))
    with pytest.raises(ShapeError, match=r"must have the same shape, except at concat_axis\. concat_axis is 1"):
        build(concat(""), (2, 3, 5, 4), (2, 3, 5, 6))
