from __future__ import annotations

import numpy as np

from tests.layers.case import build, check_layer, run_golden

TANH = 'layer { name: "l" type: "TanH" bottom: "b0" top: "t0" }'


def test_golden() -> None:
    assert run_golden("tanh") == ["torch", "onnxruntime"]


def test_against_numpy() -> None:
    check_layer(TANH, [np.random.default_rng(1).standard_normal((2, 3, 5, 4))], expect=np.tanh)


def test_large_values_do_not_overflow() -> None:
    for engine in ("torch", "onnxruntime"):
        net = build(TANH, (3,), engine=engine)
        net.blobs["b0"].data[...] = [-3e38, 0, 3e38]
        np.testing.assert_allclose(net.forward()["t0"], [-1, 0, 1])
