from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from pycaffe.data.labelled_images import read_cifar10, read_mnist
from pycaffe.errors import DataError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def idx(magic: int, *shape: int, values: bytes) -> bytes:
    return struct.pack(f">{1 + len(shape)}I", magic, *shape) + values


def test_mnist() -> None:
    Path("i").write_bytes(idx(2051, 2, 3, 4, values=bytes(range(24))))
    Path("l").write_bytes(idx(2049, 2, values=bytes([5, 3])))
    images, labels = read_mnist("i", "l")
    np.testing.assert_array_equal(images, np.arange(24).reshape(2, 1, 3, 4))
    assert labels.tolist() == [5, 3]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (idx(2051, 3, 1, 1, values=bytes(3)), r"num_items == num_labels \(3 vs. 2\)"),
        (gzip.compress(idx(2051, 2, 1, 1, values=bytes(2)), mtime=0), "Incorrect image file magic.*gunzip it first"),
        (idx(2051, 2, 3, 4, values=bytes(23)), r"'i' holds 23 values; its header says \(2, 3, 4\), 24 of them"),
        (idx(2051, 0, 3, 4, values=b""), "'i' holds 0 values"),
        (b"\0\0", "Incorrect image file magic. 'i' has 0, expected 2051"),
    ],
)
def test_bad_mnist(image: bytes, message: str) -> None:
    Path("l").write_bytes(idx(2049, 2, values=bytes(2)))
    with pytest.raises(DataError, match=r"Unable to open file i: No such file.*working directory"):
        read_mnist("i", "l")
    Path("i").write_bytes(image)
    with pytest.raises(DataError, match=message):
        read_mnist("i", "l")


def test_cifar10() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (2, 3073), np.uint8)
    Path("b").write_bytes(rows.tobytes())
    images, labels = read_cifar10("b")
    assert labels.tolist() == rows[:, 0].tolist()
    np.testing.assert_array_equal(images.reshape(2, -1), rows[:, 1:])
    assert images.shape == (2, 3, 32, 32)
    for size in (0, 3072):
        Path("b").write_bytes(bytes(size))
        with pytest.raises(DataError, match=f"'b' has {size} bytes, no multiple of 3073"):
            read_cifar10("b")
