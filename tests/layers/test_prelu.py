from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, check_layer, run_golden
from tests.layers.diffs import run_backward

PRELU = 'layer { name: "l" type: "PReLU" bottom: "b0" top: "t0" }'
SHARED = 'layer { name: "l" type: "PReLU" bottom: "b0" top: "t0" prelu_param { channel_shared: true } }'


def prelu(x: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    slopes = slopes.reshape(-1, *[1] * (x.ndim - 2))
    return np.maximum(x, 0) + slopes * np.minimum(x, 0)


@pytest.mark.parametrize("case", ["prelu", "prelu_shared"])
def test_golden(case: str) -> None:
    assert run_golden(case) == ["torch", "onnxruntime"]


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (4, 3), (2, 3, 5), (2, 3, 1, 4, 5)])
def test_against_numpy(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    check_layer(PRELU, [x], [np.float32([0.5, -1, 2])], expect=prelu)
    check_layer(SHARED, [x], [np.float32(0.3)], expect=prelu)


def test_slopes_start_as_a_quarter_and_shared_ones_are_a_scalar() -> None:
    (slopes,) = build(PRELU, (2, 3, 5, 4)).params["l"]
    np.testing.assert_array_equal(slopes.data, np.float32([0.25, 0.25, 0.25]))
    (slope,) = build(SHARED, (2, 3, 5, 4)).params["l"]
    assert slope.shape == ()
    assert slope.data == np.float32(0.25)


def test_the_gradient_at_zero_is_the_slope() -> None:
    net = run_backward(PRELU, [np.float32([[0, -2, 3]])], [np.float32([[4, 5, 6]])])
    np.testing.assert_array_equal(net.blobs["b0"].diff, [[1, 1.25, 6]])
    np.testing.assert_array_equal(net.params["l"][0].diff, [0, -10, 0])


def test_in_place_gives_the_same_gradients() -> None:
    x, dy = np.random.default_rng(2).standard_normal((2, 2, 3, 5, 4)).astype(np.float32)
    net = run_backward(PRELU, [x], [dy])
    power = 'layer { name: "p" type: "Power" bottom: "b0" top: "a" }'
    in_place = run_backward(f'{power} layer {{ name: "l" type: "PReLU" bottom: "a" top: "a" }}', [x], [dy])
    np.testing.assert_array_equal(in_place.blobs["a"].data, net.blobs["t0"].data)
    np.testing.assert_array_equal(in_place.blobs["b0"].diff, net.blobs["b0"].diff)
    # a sum over positions, grouped by how the tensors lie in memory
    np.testing.assert_allclose(in_place.params["l"][0].diff, net.params["l"][0].diff, rtol=1e-6)


def test_at_least_two_axes() -> None:
    with pytest.raises(ShapeError, match=r"Number of axes of bottom blob must be >=2\. Got shape \(3,\)"):
        build(PRELU, (3,))


def test_the_number_of_channels_cannot_change() -> None:
    net = build(PRELU, (2, 3))
    net.blobs["b0"].reshape(2, 4)
    with pytest.raises(ShapeError, match="Negative slope size is inconsistent with prototxt config"):
        net.forward()


def test_unknown_filler() -> None:
    text = 'layer { name: "l" type: "PReLU" bottom: "b0" top: "t0" prelu_param { filler { type: "gausian" } } }'
    with pytest.raises(LayerError, match=r"Unknown filler name: 'gausian'.*'gaussian'"):
        build(text, (2, 3))
