from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build, check_layer, run_golden

X = np.random.default_rng(1).uniform(0.2, 5, (2, 3, 5, 4))


def log(param: str) -> str:
    return f'layer {{ name: "l" type: "Log" bottom: "b0" top: "t0" log_param {{ {param} }} }}'


@pytest.mark.parametrize("case", ["log_0", "log_1"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "base", "scale", "shift"),
    [
        ("", np.e, 1, 0),
        ("shift: 0.5", np.e, 1, 0.5),
        ("base: 10 scale: 3", 10, 3, 0),
        ("base: 0.5 scale: -1 shift: 7", 0.5, -1, 7),
    ],
)
def test_against_numpy(param: str, base: float, scale: float, shift: float) -> None:
    check_layer(
        log(param), [X], expect=lambda x: np.float32(np.log(shift + scale * x.astype(np.float64)) / np.log(base))
    )


@pytest.mark.parametrize("base", ["0", "-2"])
def test_the_base_must_be_positive(base: str) -> None:
    with pytest.raises(LayerError, match=r"base must be strictly positive\. Got"):
        build(log(f"base: {base}"), (2, 3))


def test_the_base_must_not_be_one() -> None:
    with pytest.raises(LayerError, match=r"Inf result: 1/log\(base\) = 1/log\(1\.0\) = inf"):
        build(log("base: 1"), (2, 3))
