from __future__ import annotations

import numpy as np
import pytest

from tests.layers.case import build, check_layer, run_fork_golden


def test_golden() -> None:
    assert run_fork_golden("hardsigmoid") == ["torch", "onnxruntime"]


@pytest.mark.parametrize(
    ("param", "alpha", "beta"), [("", 0.2, 0.5), ("hardsigmoid_param { alpha: 0.5 beta: 0.25 }", 0.5, 0.25)]
)
def test_against_numpy(param: str, alpha: float, beta: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 3
    text = f'layer {{ name: "l" type: "HardSigmoid" bottom: "b0" top: "t0" {param} }}'
    expect = lambda x: np.clip(alpha * x + beta, 0, 1).astype(np.float32)  # noqa: E731
    net = check_layer(text, [x], expect=expect, gradient=False)
    net.blobs["t0"].diff[...] = x
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff, alpha * x, rtol=1e-6)  # also where y is 0 or 1


def test_by_hand() -> None:
    net = build('layer { name: "l" type: "HardSigmoid" bottom: "b0" top: "b0" }', (4,))
    net.blobs["b0"].data[...] = [-3, 0, 1, 3]
    net.forward()
    np.testing.assert_allclose(net.blobs["b0"].data, [0, 0.5, 0.7, 1], rtol=1e-6)
