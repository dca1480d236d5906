"""What gradients lose on their way, and that they get it back."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from pycaffe.cluster.protocol.compression import (
    Compression,
    Dense,
    GradientEncoder,
    NonFinite,
    Sparse,
    decode,
    encode_values,
    is_finite,
    parse_compression,
)
from pycaffe.errors import SolverError


def numbers(*key: int, size: int = 1000) -> np.ndarray:
    return np.random.default_rng(key).standard_normal(size).astype(np.float32)


def test_parse() -> None:
    assert parse_compression(None) == parse_compression("none") == Compression("none")
    assert parse_compression("fp16") == Compression("fp16")
    assert parse_compression("topk:0.01") == Compression("topk", 0.01)


@pytest.mark.parametrize("text", ["fp8", "topk", "topk:", "topk:x", "topk:0", "topk:1.1", "topk:nan", "fp16:2", ""])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(SolverError, match=r"compression is None, 'fp16' or 'topk:F' with 0 < F <= 1, .*; got "):
        parse_compression(text)


def test_without_compression_nothing_is_copied() -> None:
    gradient = numbers(1)
    encoded = GradientEncoder(Compression()).encode(0, gradient)
    assert encoded == Dense(gradient)
    assert isinstance(encoded, Dense)
    assert decode(encoded) is gradient
    assert encoded.nbytes == 4000


def test_fp16_rounds_to_half_and_gives_back_what_it_rounded() -> None:
    encoder, sent, given = GradientEncoder(Compression("fp16")), np.zeros(1000), np.zeros(1000)
    for step in range(50):
        gradient = numbers(step) * np.float32(1e-6)  # float16 knows nothing between these and 0 but a few steps
        before = gradient.copy()
        encoded = encoder.encode(3, gradient)
        np.testing.assert_array_equal(gradient, before)
        assert isinstance(encoded, Dense)
        assert encoded.nbytes == 2000
        sent += decode(encoded)
        given += gradient
    np.testing.assert_allclose(sent, given, atol=4e-8)  # half of float16's least step remains


def test_fp16_sends_what_is_too_large_in_several_parts() -> None:
    encoder = GradientEncoder(Compression("fp16"))
    sent = [decode(encoder.encode(0, np.array([1e5 if step == 0 else 0], np.float32))) for step in range(2)]  # type: ignore[arg-type]
    np.testing.assert_allclose(np.concatenate(sent), [65504, 1e5 - 65504], rtol=1e-3)


def test_topk_sends_the_largest_and_keeps_the_rest() -> None:
    encoder = GradientEncoder(Compression("topk", 0.25))
    first = encoder.encode(0, np.array([1, -8, 2, 3, 0, 0, 7, 4], np.float32))
    assert isinstance(first, Sparse)
    assert (first.indices.tolist(), first.values.tolist(), first.nbytes) == ([1, 6], [-8, 7], 16)
    second = encoder.encode(0, np.array([0, 1, 2, 2, 0, 0, 1, 0], np.float32))
    assert isinstance(second, Sparse)
    assert (second.indices.tolist(), second.values.tolist()) == ([3, 7], [5, 4])
    np.testing.assert_array_equal(decode(second), [0, 0, 0, 5, 0, 0, 0, 4])


@pytest.mark.parametrize(("size", "count"), [(1, 1), (10, 1), (100, 1), (101, 2), (10_000, 100)])
def test_topk_sends_a_hundredth_rounded_up(size: int, count: int) -> None:
    encoded = GradientEncoder(Compression("topk", 0.01)).encode(0, numbers(1, size=size))
    assert isinstance(encoded, Sparse)
    assert encoded.nbytes == 8 * count


def alternating(size: int) -> np.ndarray:
    return np.where(np.arange(size) % 61, np.arange(size), 10.0 * size).astype(np.float32)  # what is sampled is largest


@pytest.mark.parametrize("gradient", [numbers(1, size=200_003), alternating(200_003), np.ones(70_000, np.float32)])
@pytest.mark.parametrize("fraction", [1e-6, 0.001, 0.01, 0.3, 0.9, 1])
def test_topk_sends_the_largest_of_many(gradient: np.ndarray, fraction: float) -> None:
    encoded = GradientEncoder(Compression("topk", fraction)).encode(0, gradient)
    assert isinstance(encoded, Sparse)
    assert np.all(np.diff(encoded.indices.astype(np.int64)) > 0)
    np.testing.assert_array_equal(encoded.values, gradient[encoded.indices])
    expected = np.sort(abs(gradient))[-math.ceil(fraction * gradient.size) :]
    np.testing.assert_array_equal(np.sort(abs(encoded.values)), expected)


def test_fp16_rounds_as_numpy_does() -> None:
    every_half = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers_between = np.concatenate([every_half[np.isfinite(every_half)], numbers(1), numbers(2) * 1e-6])
    values = numbers_between.astype(np.float32) * np.float32(1 + 2**-11)
    half = encode_values(Compression("fp16"), values)
    expected = np.clip(values, -65504, 65504).astype(np.float16)
    np.testing.assert_array_equal(half.values.view(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal(decode(half), expected.astype(np.float32))


@pytest.mark.filterwarnings("error")
def test_what_came_over_ray_and_cannot_be_written_is_decoded() -> None:
    half = np.array([1, 0.5], np.float16)
    half.flags.writeable = False
    np.testing.assert_array_equal(decode(Dense(half)), np.array([1, 0.5], np.float32))
    assert decode(Dense(np.zeros(0, np.float16))).shape == (0,)


@pytest.mark.parametrize("kind", ["fp16", "topk"])
def test_a_bad_gradient_does_not_spoil_the_remainders(kind: str) -> None:
    encoder, undisturbed = (GradientEncoder(Compression(kind, 0.1)) for _ in range(2))
    for one in (encoder, undisturbed):
        one.encode(0, numbers(1))
    bad = numbers(2)
    bad[7] = np.nan
    assert encoder.encode(0, bad) == NonFinite()
    after, expected = encoder.encode(0, numbers(3)), undisturbed.encode(0, numbers(3))
    assert not isinstance(after, NonFinite)
    assert not isinstance(expected, NonFinite)
    np.testing.assert_array_equal(decode(after), decode(expected))


def test_reset_forgets() -> None:
    encoder = GradientEncoder(Compression("topk", 0.001))
    encoder.encode(0, numbers(1))
    encoder.reset()
    encoded = encoder.encode(0, np.eye(1, 1000, 5, dtype=np.float32)[0])
    assert isinstance(encoded, Sparse)
    assert (encoded.indices.tolist(), encoded.values.tolist()) == ([5], [1])


def test_values() -> None:
    values = np.array([1, 1 / 3, 1e6, -1e6], np.float32)
    assert encode_values(Compression("topk", 0.01), values).values is values
    half = encode_values(Compression("fp16"), values)
    np.testing.assert_allclose(decode(half), [1, 1 / 3, 65504, -65504], rtol=1e-3)
    assert half.nbytes == 8


def test_is_finite() -> None:
    assert is_finite(np.array([1e30, -1e30], np.float32))
    assert is_finite(np.zeros(0, np.float32))
    assert not is_finite(np.array([1, np.inf, -np.inf], np.float32))
    assert not is_finite(np.array([1, np.nan], np.float32))


def test_all_of_them_pickle() -> None:
    sparse = Sparse(np.array([1], np.uint32), np.array([2], np.float32), 3)
    np.testing.assert_array_equal(decode(pickle.loads(pickle.dumps(sparse))), [0, 2, 0])
    assert pickle.loads(pickle.dumps(NonFinite())) == NonFinite()
