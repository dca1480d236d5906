from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import assert_close, build, check_layer

TEXT = 'layer { name: "l" type: "EuclideanLoss" bottom: "b0" bottom: "b1" top: "loss" loss_weight: 3 }'


@pytest.mark.parametrize(("first", "second"), [((3, 5, 2, 4), (3, 5, 2, 4)), ((3, 5, 2, 4), (3, 8, 5)), ((4,), (4, 1))])
def test_both_bottoms_get_gradients(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    generator = np.random.default_rng(3)
    a, b = generator.standard_normal(first), generator.standard_normal(second)

    def expect(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        total = 0.0
        for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist()):
            total += (x - y) ** 2
        return np.asarray(total / len(a) / 2)

    net = check_layer(TEXT, [a, b], expect=expect)
    net.backward()
    diff = 3 * (a.reshape(-1) - b.reshape(-1)) / first[0]
    assert_close("b0", diff.reshape(first), net.blobs["b0"].diff, rtol=1e-4, atol=1e-6)
    assert_close("b1", -diff.reshape(second), net.blobs["b1"].diff, rtol=1e-4, atol=1e-6)


def test_wrong_shapes() -> None:
    with pytest.raises(ShapeError, match=r"\(6 vs. 5\) Inputs must have the same dimension"):
        build(TEXT, (4, 6), (4, 5))
    with pytest.raises(ShapeError, match="The data and label should have the same first dimension"):
        build(TEXT, (4, 6), (6, 4))
