from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import LayerError
from pycaffe.filler import filler
from pycaffe.proto import schema

SHAPE = (40, 30, 5, 7)
FAN_IN, FAN_OUT = 30 * 5 * 7, 40 * 5 * 7


def param(type: str, **fields: Any) -> Any:
    return schema.FillerParameter(type=type, **fields)


def fill(shape: tuple[int, ...], type: str, **fields: Any) -> np.ndarray:
    rng.seed(3)
    array = np.full(math.prod(shape), np.nan, np.float32)
    filler(param(type, **fields), shape)(array)
    assert not np.isnan(array).any()
    return array.reshape(shape)


def assert_moments(array: np.ndarray, mean: float, std: float) -> None:
    """Five standard errors each way: a right filler with a fixed seed stays far inside."""
    error = std / math.sqrt(array.size)
    assert abs(float(array.mean(dtype=np.float64)) - mean) <= 5 * error
    assert abs(float(array.std(dtype=np.float64)) - std) <= 5 * error


def assert_uniform(array: np.ndarray, low: float, high: float) -> None:
    assert_moments(array, (low + high) / 2, (high - low) / math.sqrt(12))
    span = high - low
    assert low <= array.min() <= low + span / 1000
    assert high - span / 1000 <= array.max() <= high
    counts, _ = np.histogram(array, bins=10, range=(low, high))
    assert np.abs(counts / array.size - 0.1).max() < 0.01


def assert_normal(array: np.ndarray, mean: float, std: float) -> None:
    assert_moments(array, mean, std)
    inside = [np.mean(np.abs(array - mean) < k * std) for k in (1, 2, 3)]
    np.testing.assert_allclose(inside, [0.6827, 0.9545, 0.9973], atol=0.01)


def test_constant() -> None:
    np.testing.assert_array_equal(fill((2, 3), "constant"), np.zeros((2, 3)))
    np.testing.assert_array_equal(fill((2, 3), "constant", value=-1.5), np.full((2, 3), -1.5))
    np.testing.assert_array_equal(fill((), "constant", value=4), np.float32(4))


def test_the_default_type_is_constant() -> None:
    array = np.ones(3, np.float32)
    filler(schema.FillerParameter(), (3,))(array)
    np.testing.assert_array_equal(array, [0, 0, 0])


def test_uniform() -> None:
    assert_uniform(fill(SHAPE, "uniform"), 0, 1)
    assert_uniform(fill(SHAPE, "uniform", min=-3, max=-1), -3, -1)


def test_gaussian() -> None:
    assert_normal(fill(SHAPE, "gaussian"), 0, 1)
    assert_normal(fill(SHAPE, "gaussian", mean=5, std=0.01), 5, 0.01)


def test_sparse_gaussian_keeps_that_many_inputs_of_an_output_on_average() -> None:
    array = fill((200, 1000), "gaussian", std=2, sparse=15)
    kept = array != 0
    probability = 15 / 200
    assert abs(kept.mean() - probability) < 5 * math.sqrt(probability / array.size)
    assert_normal(array[kept], 0, 2)


def test_sparse_zero_keeps_nothing() -> None:
    np.testing.assert_array_equal(fill((4, 5), "gaussian", sparse=0), np.zeros((4, 5)))


def test_positive_unitball() -> None:
    array = fill((4, 3, 50), "positive_unitball")
    assert array.min() >= 0
    np.testing.assert_allclose(array.sum(axis=(1, 2)), np.ones(4), rtol=1e-5)
    assert len(np.unique(array)) > 500


@pytest.mark.parametrize(
    ("norm", "fan"), [("FAN_IN", FAN_IN), ("FAN_OUT", FAN_OUT), ("AVERAGE", (FAN_IN + FAN_OUT) / 2)]
)
def test_xavier_and_msra(norm: str, fan: float) -> None:
    scale = math.sqrt(3 / fan)
    assert_uniform(fill(SHAPE, "xavier", variance_norm=norm), -scale, scale)
    assert_normal(fill(SHAPE, "msra", variance_norm=norm), 0, math.sqrt(2 / fan))


def test_the_fan_out_of_a_vector_is_its_length() -> None:
    scale = math.sqrt(3 / 40000)
    assert_uniform(fill((40000,), "xavier", variance_norm="FAN_OUT"), -scale, scale)
    assert_uniform(fill((40000,), "xavier"), -math.sqrt(3), math.sqrt(3))


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear(size: int, line: list[float]) -> None:
    array = fill((2, 3, size, size), "bilinear")
    for kernel in array.reshape(6, size, size):
        np.testing.assert_allclose(kernel, np.outer(line, line), rtol=1e-6)


def test_nothing_is_drawn_before_the_blob_is_looked_at_and_order_does_not_matter() -> None:
    def filled(order: tuple[int, int]) -> list[np.ndarray]:
        rng.seed(9)
        fills = [filler(param("gaussian"), (5,)), filler(param("uniform"), (5,))]
        arrays = [np.zeros(5, np.float32), np.zeros(5, np.float32)]
        for i in order:
            fills[i](arrays[i])
        return arrays

    np.testing.assert_array_equal(filled((0, 1)), filled((1, 0)))


def test_two_fillers_draw_different_values() -> None:
    rng.seed(9)
    first, second = np.zeros((2, 5), np.float32)
    filler(param("gaussian"), (5,))(first)
    filler(param("gaussian"), (5,))(second)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("fields", "shape", "message"),
    [
        ({"type": "xaver"}, (2, 3), r"Unknown filler name: 'xaver'\. Did you mean 'xavier'\?"),
        ({"type": "gaussian"}, (2, 0), r"Check failed: count\. Filler 'gaussian' on an empty blob of shape \(2, 0\)"),
        ({"type": "constant", "sparse": 3}, (2, 3), "Sparsity not supported by this Filler"),
        ({"type": "gaussian", "sparse": -2}, (2, 3), r"Check failed: sparse >= -1\. Got -2"),
        ({"type": "gaussian", "sparse": 1}, (), r"num_axes\(\) >= 1"),
        ({"type": "gaussian", "sparse": 3}, (2, 3), r"Check failed: p <= 1\. .*sparse 3"),
        ({"type": "gaussian", "std": 0}, (2, 3), r"Check failed: sigma > 0\. .*std 0\.0"),
        ({"type": "uniform", "min": 2, "max": 1}, (2, 3), r"Check failed: a <= b\. .*min 2\.0.* max 1\.0"),
        ({"type": "positive_unitball"}, (), r"axis 0 .*0-D"),
        ({"type": "bilinear"}, (2, 3, 4), r"Blob must be 4 dim\. Got shape \(2, 3, 4\)"),
        ({"type": "bilinear"}, (2, 3, 4, 5), "Filter must be square"),
    ],
)
def test_bad_input(fields: dict[str, Any], shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(LayerError, match=message):
        filler(schema.FillerParameter(**fields), shape)
