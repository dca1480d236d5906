"""SmoothL1LossOHEM is R-FCN's SmoothL1Loss in every dialect."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import NetError
from tests.layers.case import build, check_layer
from tests.layers.test_smooth_l1_loss import SHAPE, bottoms, layer, smooth


def test_values() -> None:
    def expect(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> list[np.ndarray]:
        errors = smooth(weight * (a - b))
        return [np.asarray(errors.sum() / 70), errors.sum(1, keepdims=True)]

    text = layer(3, tops=2).replace("SmoothL1Loss", "SmoothL1LossOHEM")
    check_layer(text, bottoms(3), expect=expect, gradient=False)


def test_gradient_in_double_precision() -> None:
    text = layer(2, "smooth_l1_loss_param { sigma: 3 }").replace("SmoothL1Loss", "SmoothL1LossOHEM")
    check_layer(text, bottoms(2), expect=lambda a, b: np.asarray(smooth(a - b).sum() / 70))


def test_bad_input() -> None:
    with pytest.raises(NetError, match="at most 3 bottom"):
        build(layer(4).replace("SmoothL1Loss", "SmoothL1LossOHEM"), *[SHAPE] * 4)
