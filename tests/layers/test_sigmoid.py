from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import build, check_layer, run_golden

SIGMOID = 'layer { name: "l" type: "Sigmoid" bottom: "b0" top: "t0" }'


@pytest.mark.parametrize("case", ["sigmoid", "propagate_down"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


def test_against_numpy() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 3
    check_layer(SIGMOID, [x], expect=lambda x: np.float32(0.5 * np.tanh(0.5 * x.astype(np.float64)) + 0.5))


def test_small_values_do_not_cancel_and_large_ones_do_not_overflow() -> None:
    net = build(SIGMOID, (4,), engine="torch")
    net.blobs["b0"].data[...] = [-200, -20, 20, 3e38]
    np.testing.assert_allclose(net.forward()["t0"], [0, 2.0611537e-9, 1, 1], rtol=1e-6)
