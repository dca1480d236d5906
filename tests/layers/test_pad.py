from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer


def layer(param: str, top: str = "t0") -> str:
    return f'layer {{ name: "l" type: "Pad" bottom: "b0" top: "{top}" pad_param {{ {param} }} }}'


@pytest.mark.parametrize(
    ("param", "sides", "mode"),
    [
        ("", ((0, 0), (0, 0)), {}),
        ("pad: 2", ((2, 2), (2, 2)), {}),
        ("pad_h: 1 pad_w: 3 pad_value: 4.5", ((1, 1), (3, 3)), {"constant_values": 4.5}),
        ("pad_u: 1 pad_d: 2 pad_l: 3", ((1, 2), (3, 0)), {}),
        ("pad_t: 1 pad_b: 2 pad_r: 3", ((1, 2), (0, 3)), {}),
        ("pad_u: 1 pad_d: 2 pad_l: 9 pad_type: REPLICATE", ((1, 2), (9, 0)), {"mode": "edge"}),
        ("pad_u: 3 pad_d: 2 pad_l: 1 pad_r: 4 pad_type: REFLECT", ((3, 2), (1, 4)), {"mode": "reflect"}),
        ("pad: 4 padtype: REFLECT", ((4, 4), (4, 4)), {"mode": "symmetric"}),
        ("pad: 1 padtype: ZERO", ((1, 1), (1, 1)), {}),
        ("pad: 3 padtype: REPLICATE", ((3, 3), (3, 3)), {"mode": "edge"}),
    ],
)
@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 4, 5), (4, 5)])
def test_against_numpy(param: str, sides: tuple, mode: dict, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    check_layer(layer(param), [x], expect=lambda x: np.pad(x, [(0, 0)] * (len(shape) - 2) + list(sides), **mode))


@pytest.mark.parametrize("pad_type", ["CONSTANT", "REPLICATE", "REFLECT"])
def test_negative_numbers_cut_off(pad_type: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5))
    text = layer(f"pad_u: -1 pad_d: 0 pad_l: -2 pad_r: -1 pad_type: {pad_type}")
    check_layer(text, [x], expect=lambda x: x[:, :, 1:, 2:4])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("pad: 1 pad_h: 2", r"each by one name. Got \['pad', 'pad_h'\]"),
        ("pad_w: 1 pad_l: 2", "each by one name"),
        ("pad_u: 1 pad_t: 2", "each by one name"),
    ],
)
def test_numbers_of_several_kinds(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param), (2, 3, 4, 5))


def test_bad_shapes() -> None:
    for param, message in (
        ("pad_u: -3 pad_d: -1", "nothing remains"),
        ("pad_l: -5 pad_r: 5", "nothing remains"),
        ("pad_u: 4 pad_type: REFLECT", "REFLECT mirrors at most 3 of 4 pixels"),
        ("pad: 5 padtype: REFLECT", "REFLECT mirrors at most 4 of 4 pixels"),
        ("pad: 1000000000", "blob size exceeds INT_MAX"),
        ("pad_u: 1000000000 pad_l: 1000000000 pad_type: REPLICATE", "blob size exceeds INT_MAX"),
    ):
        with pytest.raises(ShapeError, match=message):
            build(layer(param), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match="at least 2 axes"):
        build(layer(""), (3,))
    with pytest.raises(LayerError, match="does not allow in-place computation"):
        build(layer("", top="b0"), (4, 5))
