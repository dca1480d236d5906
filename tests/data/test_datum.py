from __future__ import annotations

import cv2
import numpy as np
import pytest

from pycaffe.data import datum_to_array, parse_datum
from pycaffe.errors import DataError, LayerError
from pycaffe.proto import schema

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)  # (H, W, C)


def encoded(image: np.ndarray) -> object:
    return schema.Datum(data=cv2.imencode(".png", image)[1].tobytes(), encoded=True)


def test_raw_bytes() -> None:
    planes = np.ascontiguousarray(IMAGE.transpose(2, 0, 1))
    datum = schema.Datum(channels=3, height=4, width=5, data=planes.tobytes(), label=7)
    got = datum_to_array(parse_datum(datum.SerializeToString(), "r"), "r")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, planes)


def test_floats_are_used_where_there_are_no_bytes() -> None:
    values = np.random.default_rng(1).standard_normal((2, 3, 5), np.float32)
    datum = schema.Datum(channels=2, height=3, width=5, float_data=values.ravel())
    np.testing.assert_array_equal(datum_to_array(datum, "r"), values)
    datum.data = bytes(range(30))
    np.testing.assert_array_equal(datum_to_array(datum, "r").ravel(), np.arange(30))


def test_encoded_images_keep_their_channels_unless_forced() -> None:
    grey = IMAGE[:, :, 0]
    np.testing.assert_array_equal(datum_to_array(encoded(IMAGE), "r"), IMAGE.transpose(2, 0, 1))
    np.testing.assert_array_equal(datum_to_array(encoded(grey), "r"), grey[None])
    np.testing.assert_array_equal(datum_to_array(encoded(grey), "r", force_color=True), np.stack([grey] * 3))
    forced = datum_to_array(encoded(IMAGE), "r", force_gray=True)
    luminance = IMAGE @ np.array([0.114, 0.587, 0.299])
    assert forced.shape == (1, 4, 5)
    np.testing.assert_allclose(forced[0], luminance, atol=1)  # libpng rounds down


def test_raw_data_are_not_forced() -> None:
    datum = schema.Datum(channels=1, height=2, width=3, data=bytes(6))
    assert datum_to_array(datum, "r", force_color=True).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("datum", "message"),
    [
        (schema.Datum(channels=3, height=4, width=5, data=bytes(59)), "has 59 values, its shape .* needs 60"),
        (schema.Datum(channels=1, height=2, width=2, float_data=[1, 2, 3]), "has 3 values"),
        (schema.Datum(), "datum_channels > 0"),
        (schema.Datum(data=b"no image", encoded=True), "Could not decode datum. record 'x'"),
        (encoded(IMAGE.astype(np.uint16) * 256), "must be unsigned byte.*'uint16'"),
    ],
    ids=["short", "short floats", "empty", "no image", "16 bit"],
)
def test_bad_datums(datum: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        datum_to_array(datum, "record 'x'")


def test_both_forces_are_an_error() -> None:
    with pytest.raises(LayerError, match="cannot set both force_color and force_gray"):
        datum_to_array(encoded(IMAGE), "r", force_color=True, force_gray=True)


def test_bytes_that_are_no_datum() -> None:
    with pytest.raises(DataError, match="record 'x' is no Datum"):
        parse_datum(b"\xff\xff\xff", "record 'x'")
