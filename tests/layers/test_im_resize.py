from __future__ import annotations

import cv2
import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str) -> str:
    return f'layer {{ name: "l" type: "ImResize" bottom: "b0" top: "t0" imresize_param {{ {param} }} }}'


def resized(x, size):
    return np.stack([cv2.resize(plane, size[::-1], interpolation=cv2.INTER_CUBIC) for plane in x])[None]


@pytest.mark.parametrize(
    ("param", "size"),
    [
        ("factor: 4", (20, 28)),
        ("factor: 0.7", (3, 4)),
        ("target_spatial_height: 9 target_spatial_width: 13", (9, 13)),
        ("", (368, 368)),
    ],
)
def test_against_opencv(param: str, size: tuple[int, int]) -> None:
    x = np.random.default_rng(1).standard_normal((1, 3, 5, 7))
    check_layer(layer(param), [x], expect=lambda x: resized(x[0], size), rtol=1e-4)


def test_the_items_are_scales_of_one_image() -> None:
    x = np.random.default_rng(1).standard_normal((3, 2, 8, 12))

    def expect(x):
        frames = [(0, 0), (1, 1), (2, 3)]  # floor(4 * 0.25), floor(6 * 0.25); floor(4 * 0.5), floor(6 * 0.5)
        inside = [plane[:, r : 8 - r, c : 12 - c] for plane, (r, c) in zip(x, frames)]
        return np.mean([resized(np.ascontiguousarray(planes), (16, 24)) for planes in inside], 0)

    check_layer(layer("factor: 2 scale_gap: 0.25"), [x], expect=expect, rtol=1e-4)


@pytest.mark.parametrize("factor", ["-1", "nan", "inf"])
def test_bad_factor(factor: str) -> None:
    with pytest.raises(LayerError, match="ImResize's factor is not negative"):
        build(layer(f"factor: {factor}"), (1, 3, 5, 7))


@pytest.mark.parametrize(
    ("param", "shape", "message"),
    [
        ("factor: 0.1", (1, 3, 5, 7), r"top would be empty.*size \(0, 0\)"),
        ("start_scale: 1.5", (1, 3, 5, 7), "lie between 0 and 1"),
        ("scale_gap: 0.5", (4, 3, 6, 8), "lie between 0 and 1"),
        ("start_scale: nan", (1, 3, 5, 7), "lie between 0 and 1"),
        ("factor: 1e9", (1, 3, 5, 7), "blob size exceeds INT_MAX"),
        ("", (3, 5, 7), "ImResize's bottom has 4 axes"),
    ],
)
def test_bad_shapes(param: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        build(layer(param), shape)
