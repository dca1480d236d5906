from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

X = np.random.default_rng(1).uniform(0.2, 3, (2, 3, 5, 4))


def power(param: str) -> str:
    return f'layer {{ name: "l" type: "Power" bottom: "b0" top: "t0" power_param {{ {param} }} }}'


@pytest.mark.parametrize("case", [f"power_{i}" for i in range(5)])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "exponent", "scale", "shift"),
    [
        ("", 1, 1, 0),
        ("scale: -2", 1, -2, 0),
        ("power: 2", 2, 1, 0),
        ("power: 3 scale: 0.5 shift: -1", 3, 0.5, -1),
        ("power: 0.5", 0.5, 1, 0),
        ("power: -1 scale: 2", -1, 2, 0),
        ("power: 2.5 shift: 0.1", 2.5, 1, 0.1),
        ("power: 3 scale: 0 shift: 2", 3, 0, 2),
        ("power: 0 scale: 0", 0, 0, 0),
        ("power: 0 shift: 5", 0, 1, 5),
    ],
)
def test_against_numpy(param: str, exponent: float, scale: float, shift: float) -> None:
    check_layer(power(param), [X], expect=lambda x: np.float32((shift + scale * x.astype(np.float64)) ** exponent))


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize(
    ("param", "value"),
    [("power: 0", 1), ("power: 2 scale: 0 shift: -3", 9), ("power: -1 scale: 0", np.inf)],
)
def test_with_power_or_scale_zero_the_bottom_is_not_looked_at(param: str, value: float, engine: str) -> None:
    net = build(power(param), (2, 3), engine=engine)
    net.blobs["b0"].data[...] = [[np.nan, np.inf, -np.inf], [0, 1, -1]]
    np.testing.assert_array_equal(net.forward()["t0"], np.full((2, 3), value, np.float32))


def test_with_power_or_scale_zero_the_gradient_is_zero() -> None:
    (diff,) = bottom_diffs(power("power: 0"), [np.float32([np.nan, 2])], [np.float32([3, 4])])
    np.testing.assert_array_equal(diff, [0, 0])


def test_the_gradient_where_the_base_is_zero_is_the_derivative() -> None:
    (diff,) = bottom_diffs(power("power: 3"), [np.float32([0, 2])], [np.float32([5, 5])])
    np.testing.assert_array_equal(diff, [0, 60])


def test_a_negative_base_to_a_fraction_is_nan_on_both_engines() -> None:
    for engine in ("torch", "onnxruntime"):
        net = build(power("power: 0.5"), (3,), engine=engine)
        net.blobs["b0"].data[...] = [-1, 0, 4]
        np.testing.assert_array_equal(net.forward()["t0"], np.float32([np.nan, 0, 2]))
