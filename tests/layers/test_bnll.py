from __future__ import annotations

import numpy as np

from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import bottom_diffs

BNLL = 'layer { name: "l" type: "BNLL" bottom: "b0" top: "t0" }'


def test_golden() -> None:
    assert run_golden("bnll") == ["torch", "onnxruntime"]


def test_against_numpy() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 4
    check_layer(BNLL, [x], expect=lambda x: np.log1p(np.exp(x.astype(np.float64))).astype(np.float32))


def test_large_values_do_not_overflow() -> None:
    for engine in ("torch", "onnxruntime"):
        net = build(BNLL, (4,), engine=engine)
        net.blobs["b0"].data[...] = [-200, -50, 60, 3e38]
        np.testing.assert_allclose(net.forward()["t0"], np.float32([0, 0, 60, 3e38]), atol=1e-12)


def test_the_gradient_of_large_values_is_one() -> None:
    (diff,) = bottom_diffs(BNLL, [np.float32([0, 49, 51, 3e38, -200])], [np.float32([2, 2, 2, 2, 2])])
    np.testing.assert_allclose(diff, [1, 2, 2, 2, 0], rtol=1e-6)
