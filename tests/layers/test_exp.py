from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden

X = np.random.default_rng(1).standard_normal((2, 3, 5, 4))


def exp(param: str) -> str:
    return f'layer {{ name: "l" type: "Exp" bottom: "b0" top: "t0" exp_param {{ {param} }} }}'


@pytest.mark.parametrize("case", ["exp_0", "exp_1", "exp_2"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "base", "scale", "shift"),
    [
        ("", np.e, 1, 0),
        ("base: -1 shift: -0.5", np.e, 1, -0.5),
        ("base: 2 scale: 3 shift: 1.5", 2, 3, 1.5),
        ("base: 0.5 scale: -1", 0.5, -1, 0),
        ("base: 1", 1, 1, 0),
        ("scale: 0 shift: 2", np.e, 0, 2),
    ],
)
def test_against_numpy(param: str, base: float, scale: float, shift: float) -> None:
    check_layer(exp(param), [X], expect=lambda x: np.float32(base ** (shift + scale * x.astype(np.float64))))


@pytest.mark.parametrize("base", ["0", "-2", "nan"])
def test_the_base_must_be_positive(base: str) -> None:
    with pytest.raises(LayerError, match=r"base must be strictly positive\. Got"):
        build(exp(f"base: {base}"), (2, 3))


def test_the_base_must_be_finite() -> None:
    with pytest.raises(LayerError, match=r"Inf result: log\(base\) = log\(inf\) = inf"):
        build(exp("base: inf"), (2, 3))
