from __future__ import annotations

import logging

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError
from pycaffe.net import Net
from tests.layers.case import build

LAYER = (
    'layer { name: "l" type: "MemoryData" top: "data" top: "label" '
    "memory_data_param { batch_size: 2 channels: 3 height: 4 width: 5 } }"
)


def arrays(rows: int = 6) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(rows)
    return (
        generator.standard_normal((rows, 3, 4, 5), np.float32),
        generator.standard_normal((rows, 1, 1, 1), np.float32),
    )


def expect_batch(net: Net, data: np.ndarray, labels: np.ndarray, start: int) -> None:
    net.forward()
    for n in range(2):
        np.testing.assert_array_equal(net.blobs["data"].data[n], data[start + n])
        np.testing.assert_array_equal(net.blobs["label"].data[n], labels[start + n])


def test_batches_come_round_and_a_reset_starts_over() -> None:
    net = build(LAYER)
    assert net.blobs["label"].shape == (2,)
    data, labels = arrays()
    net.set_input_arrays(data, labels)
    for start in (0, 2, 4, 0, 2):
        expect_batch(net, data, labels, start)
    assert net.blobs["label"].shape == (2, 1, 1, 1)
    other, other_labels = arrays(2)
    net.set_input_arrays(other, other_labels)
    expect_batch(net, other, other_labels, 0)


def test_the_arrays_are_not_copied() -> None:
    net = build(LAYER)
    data, labels = arrays()
    net.set_input_arrays(data, labels)
    expect_batch(net, data, labels, 0)
    data[2:] += 1
    expect_batch(net, data, labels, 2)


def test_a_net_behind_it_runs() -> None:
    net = build(LAYER + 'layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 3 shift: 1 } }')
    data, labels = arrays(4)
    net.set_input_arrays(data, labels)
    for start in (0, 2, 0):
        net.forward()
        np.testing.assert_allclose(net.blobs["p"].data, data[start : start + 2] * 3 + 1, rtol=1e-5)


def test_a_transform_is_not_applied_and_a_warning_says_so(caplog: pytest.LogCaptureFixture) -> None:
    net = build(LAYER[:-1] + "transform_param { scale: 7 } }")
    data, labels = arrays()
    with caplog.at_level(logging.WARNING, "pycaffe"):
        net.set_input_arrays(data, labels)
    assert "MemoryData does not transform array data on Reset()" in caplog.text
    expect_batch(net, data, labels, 0)


def test_forward_before_reset() -> None:
    with pytest.raises(LayerError, match="MemoryDataLayer needs to be initialized by calling Reset"):
        build(LAYER).forward()


def test_parameters_must_be_positive() -> None:
    with pytest.raises(LayerError, match=r"must be specified and positive in memory_data_param.*\(3, 0, 5\)"):
        build(LAYER.replace("height: 4", "height: 0"))


@pytest.mark.parametrize(
    ("data", "labels", "message"),
    [
        (arrays()[0][::2], arrays(3)[1], "data array must be C contiguous"),
        (arrays()[0].tolist(), arrays()[1], "data array must be a NumPy array, not list"),
        (arrays()[0][0], arrays()[1], "data array must be 4-d"),
        (arrays()[0].astype(np.float64), arrays()[1], "data array must be float32. Got 'float64'"),
        (arrays()[0].reshape(6, 4, 3, 5), arrays()[1], "data array has wrong number of channels: expected 3, got 4"),
        (arrays()[0].reshape(6, 3, 5, 4), arrays()[1], "data array has wrong height: expected 4, got 5"),
        (np.zeros((6, 3, 4, 6), np.float32), arrays()[1], "data array has wrong width: expected 5, got 6"),
        (arrays()[0], arrays()[1].reshape(3, 1, 1, 2), "labels array has wrong width: expected 1, got 2"),
        (arrays()[0], arrays(4)[1], "data and labels must have the same first dimension. Got 6 and 4"),
        (*arrays(5), "first dimensions of input arrays must be a multiple of batch size. Got 5, batch size 2"),
        (*arrays(0), "must be a multiple of batch size"),
    ],
)
def test_arrays_that_do_not_fit(data: object, labels: object, message: str) -> None:
    (layer,) = build(LAYER).layers
    with pytest.raises(InputError, match=message):
        layer.reset(data, labels)
