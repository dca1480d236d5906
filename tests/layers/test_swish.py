from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import check_layer, run_golden


def test_golden() -> None:
    assert run_golden("swish") == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "beta"), [("", 1), ("swish_param { beta: 0.4 }", 0.4), ("swish_param { beta: 0 }", 0)]
)
def test_against_numpy(param: str, beta: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 3
    text = f'layer {{ name: "l" type: "Swish" bottom: "b0" top: "t0" {param} }}'
    check_layer(text, [x], expect=lambda x: np.float32(x / (1 + np.exp(-beta * x.astype(np.float64)))))
