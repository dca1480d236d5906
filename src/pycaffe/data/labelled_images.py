"""The files of MNIST and CIFAR-10, as their authors publish them."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from pycaffe.data.database import working_directory
from pycaffe.errors import DataError

__all__ = ["read_cifar10", "read_mnist"]

Images = npt.NDArray[np.uint8]
IMAGE_MAGIC, LABEL_MAGIC = 2051, 2049
GZIP = b"\x1f\x8b"
CIFAR_SHAPE = (3, 32, 32)  # red, green, blue


def read_mnist(image_file: str, label_file: str) -> tuple[Images, Images]:
    """Images (N, 1, H, W) and labels (N,) of an IDX pair.

    Raises:
        DataError: a file is missing, still compressed, cut off, no IDX file of its kind, or they differ in N.
    """
    images = _read_idx(image_file, "image", IMAGE_MAGIC, 3)
    labels = _read_idx(label_file, "label", LABEL_MAGIC, 1)
    if len(images) != len(labels):
        raise DataError(
            f"Check failed: num_items == num_labels ({len(images)} vs. {len(labels)}). {image_file!r}, {label_file!r}."
        )
    return images[:, None], labels


def _read_idx(path: str, kind: str, magic: int, axes: int) -> Images:
    data = _read(path, f"Unable to open file {path}")
    found = int.from_bytes(data[:4], "big")
    if found != magic or len(data) < 4 + 4 * axes:
        advice = " It is compressed: gunzip it first." if data[:2] == GZIP else ""
        raise DataError(f"Incorrect {kind} file magic. {path!r} has {found!r}, expected {magic!r}.{advice}")
    shape = tuple(int(extent) for extent in np.frombuffer(data, ">u4", axes, 4))
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * axes)
    count = int(np.prod(shape))
    if len(values) < count or count == 0:
        raise DataError(f"{path!r} holds {len(values)!r} values; its header says {shape!r}, {count!r} of them.")
    return values[:count].reshape(shape)


def read_cifar10(path: str) -> tuple[Images, Images]:
    """Images (N, 3, 32, 32), red, green, blue, and labels (N,) of a binary batch file.

    Raises:
        DataError: the file is missing or cut off.
    """
    data = np.frombuffer(_read(path, f"Unable to open train file {path}"), np.uint8)
    size = 1 + int(np.prod(CIFAR_SHAPE))
    if len(data) == 0 or len(data) % size:
        raise DataError(f"{path!r} has {len(data)!r} bytes, no multiple of {size!r}: it is cut off, or another file.")
    rows = data.reshape(-1, size)
    return rows[:, 1:].reshape(-1, *CIFAR_SHAPE), rows[:, 0]


def _read(path: str, sentence: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(f"{sentence}: {error.strerror}.{working_directory(os.fspath(path))}") from error
