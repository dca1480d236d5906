"""WarpCTC is WarpCTCLoss, however they are spelled."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import ShapeError
from tests.layers.case import build
from tests.layers.test_ctc_loss import run, scores
from tests.layers.test_warp_ctc_loss import layer

NAMES = ["WarpCTC", "WarpCtc", "WarpCtcLoss"]


@pytest.mark.parametrize("name", NAMES)
def test_the_same_loss(name: str) -> None:
    x, labels = scores(5, 2, 4), np.array([[1, 3], [2, 0]])
    loss, gradient = run(layer(2).replace("WarpCTCLoss", name), x, labels)
    want, want_gradient = run(layer(2), x, labels)
    assert loss == want
    np.testing.assert_array_equal(gradient, want_gradient)


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match="Unsupported blobs shape"):
        build(layer(2).replace("WarpCTCLoss", "WarpCTC"), (5, 2, 4), (3, 3))
