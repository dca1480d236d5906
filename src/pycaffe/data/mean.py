"""Mean images: BlobProto files, as compute_image_mean writes them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from pycaffe.blob import FloatArray
from pycaffe.data.database import working_directory
from pycaffe.errors import DataError
from pycaffe.proto import schema
from pycaffe.proto.replace_file import replacing

__all__ = ["read_mean", "write_mean"]


def read_mean(path: str) -> FloatArray:
    """The mean image in a .binaryproto file.

    Returns:
        (C, H, W), float32; the first image where the file holds several.

    Raises:
        DataError: the file is missing, damaged, or holds no image of four (N, C, H, W) or three axes.
    """
    try:
        with open(path, "rb") as file:
            proto = schema.BlobProto.FromString(file.read())
    except OSError as error:
        raise DataError(f"File not found: {path}. {error.strerror}.{working_directory(path)}") from error
    except DecodeError as error:
        raise DataError(f"The mean file {path!r} is no BlobProto: {error}.") from error
    shape = _blob_shape(proto)
    values = proto.double_data if proto.double_data else proto.data
    if len(shape) not in (3, 4) or math.prod(shape) != len(values) or not values:
        raise DataError(f"The mean file {path!r} holds no image: shape {shape!r}, {len(values)!r} values.")
    mean: FloatArray = np.asarray(values, np.float32).reshape(shape)
    return mean[0] if mean.ndim == 4 else mean


def write_mean(path: str, mean: FloatArray) -> None:
    """Writes a mean image (C, H, W) as compute_image_mean does, with the old fields of the shape: all tools read it.

    Raises:
        DataError: the file cannot be written.
    """
    channels, height, width = mean.shape
    proto = schema.BlobProto(num=1, channels=channels, height=height, width=width, data=mean.ravel())
    try:
        with replacing(path) as temporary, open(temporary, "xb") as file:
            file.write(proto.SerializeToString())
    except OSError as error:
        raise DataError(f"Could not write the mean file {path!r}: {error.strerror}.") from error


def _blob_shape(proto: Any) -> tuple[int, ...]:
    """As Blob::FromProto: the legacy fields count as soon as one of them is there."""
    if any(proto.HasField(field) for field in ("num", "channels", "height", "width")):
        return (proto.num, proto.channels, proto.height, proto.width)
    return tuple(proto.shape.dim)
