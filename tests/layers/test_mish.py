from __future__ import annotations

import numpy as np

from tests.layers.case import build, check_layer

TEXT = 'layer { name: "l" type: "Mish" bottom: "b0" top: "t0" }'


def test_against_numpy() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 3
    check_layer(TEXT, [x], expect=lambda x: x * np.tanh(np.log1p(np.exp(x.astype(np.float64)))).astype(np.float32))


def test_large_values_do_not_overflow() -> None:
    for engine in ("torch", "onnxruntime"):
        net = build(TEXT, (3,), engine=engine)
        net.blobs["b0"].data[...] = [-1000, 0, 1000]
        net.forward()
        assert net.blobs["t0"].data.tolist() == [0, 0, 1000]
