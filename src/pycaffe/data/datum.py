"""Datum messages, the records of Caffe's databases (util/io.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from pycaffe.errors import DataError, InputError, LayerError
from pycaffe.images.decode import decode, decode_unchanged
from pycaffe.proto import schema

__all__ = ["datum_to_array", "image_to_planes", "parse_datum"]


def parse_datum(value: bytes, name: str) -> Any:
    """The Datum in a record's value; `name` says for messages where it came from.

    Raises:
        DataError: the bytes are no Datum.
    """
    try:
        return schema.Datum.FromString(value)
    except DecodeError as error:
        raise DataError(f"{name} is no Datum: {error}.") from error


def datum_to_array(datum: Any, name: str, force_color: bool = False, force_gray: bool = False) -> npt.NDArray[Any]:
    """The image of a Datum.

    Args:
        datum: raw `data` (bytes), raw `float_data`, or with `encoded` an image file in `data`.
        name: where it came from, for messages.
        force_color: decode to three channels (BGR). Raw data are left as they are, as in the original.
        force_gray: decode to one channel.

    Returns:
        (C, H, W), uint8 or float32; a view into the Datum where it is raw.

    Raises:
        DataError: the data are too short for the Datum's shape, cannot be decoded, or are no eight-bit image.
        LayerError: both force_color and force_gray are set.
    """
    if datum.encoded:
        if force_color and force_gray:
            raise LayerError("cannot set both force_color and force_gray")
        try:
            forced = force_color or force_gray
            image = decode(datum.data, grey=force_gray) if forced else decode_unchanged(datum.data)
        except InputError as error:
            raise DataError(f"Could not decode datum. {name}: {error}") from error
        return image_to_planes(image, name)
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:  # has_uint8 of data_transformer.cpp: bytes win over float_data
        values: npt.NDArray[Any] = np.frombuffer(datum.data, np.uint8)
    else:
        values = np.asarray(datum.float_data, np.float32)
    count = shape[0] * shape[1] * shape[2]
    if min(shape) <= 0:
        raise DataError(f"Check failed: datum_channels > 0. {name} has the shape {shape!r}.")
    if values.size < count:
        raise DataError(f"{name} is too short: it has {values.size!r} values, its shape {shape!r} needs {count!r}.")
    return values[:count].reshape(shape)


def image_to_planes(image: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """(H, W) or (H, W, C) → a view (C, H, W).

    Raises:
        DataError: not eight bits a channel.
    """
    if image.dtype != np.uint8:
        raise DataError(f"Image data type must be unsigned byte. {name} holds {image.dtype.name!r}.")
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
