from __future__ import annotations

import numpy as np

from tests.layers.case import build, check_layer

TEXT = 'layer { name: "l" type: "HardSwish" bottom: "b0" top: "t0" }'


def test_against_numpy() -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4)) * 3
    check_layer(TEXT, [x], expect=lambda x: x * np.clip(x / 6 + 0.5, 0, 1))


def test_by_hand() -> None:
    net = build(TEXT, (5,))
    net.blobs["b0"].data[...] = [-4, -3, 0, 1, 5]
    net.forward()
    np.testing.assert_allclose(net.blobs["t0"].data, [0, 0, 0, 2 / 3, 5], rtol=1e-6)
