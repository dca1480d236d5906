from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import check_layer, run_golden
from tests.layers.diffs import run_backward


def threshold(bound: float) -> str:
    return f'layer {{ name: "l" type: "Threshold" bottom: "b0" top: "t0" threshold_param {{ threshold: {bound} }} }}'


def test_golden() -> None:
    assert run_golden("threshold") == ["torch", "onnxruntime"]


@pytest.mark.parametrize("bound", [0, 0.5, -0.25])
def test_against_numpy(bound: float) -> None:
    x = np.random.default_rng(1).standard_normal((2, 3, 5, 4))
    x[0, 0, 0] = bound  # the bound itself is not above it
    check_layer(threshold(bound), [x], expect=lambda x: np.float32(x > np.float32(bound)), gradient=False)


def test_force_backward_stops_here() -> None:
    net = run_backward(threshold(0), [np.float32([1, -1])], [np.float32([3, 3])])
    np.testing.assert_array_equal(net.blobs["b0"].diff, [0, 0])


def test_it_has_no_gradient() -> None:
    scale = 'layer { name: "s" type: "Scale" bottom: "b0" top: "a" }'
    text = f'{scale} layer {{ name: "l" type: "Threshold" bottom: "a" top: "t0" loss_weight: 1 }}'
    with pytest.raises(LayerError, match="Not Implemented Yet: Threshold has no gradient"):
        run_backward(text, [np.float32([[1, -1]])], [np.float32([[3, 3]])])
