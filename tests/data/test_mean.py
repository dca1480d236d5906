from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pycaffe.data.mean import read_mean
from pycaffe.errors import DataError
from pycaffe.proto import schema

VALUES = np.random.default_rng(0).standard_normal((2, 3, 5), np.float32)
LEGACY = {"num": 1, "channels": 2, "height": 3, "width": 5}


@pytest.mark.parametrize(
    "proto",
    [
        schema.BlobProto(data=VALUES.ravel(), **LEGACY),
        schema.BlobProto(double_data=VALUES.ravel(), **LEGACY),
        schema.BlobProto(data=VALUES.ravel(), shape={"dim": [1, 2, 3, 5]}),
        schema.BlobProto(data=VALUES.ravel(), shape={"dim": [2, 3, 5]}),
    ],
    ids=["legacy", "double", "shape", "three axes"],
)
def test_every_way_to_write_a_mean(tmp_path: Path, proto: object) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(proto.SerializeToString())
    np.testing.assert_array_equal(read_mean(str(path)), VALUES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xff", "is no BlobProto"),
        (b"", "holds no image"),
        (schema.BlobProto(data=[1, 2], shape={"dim": [2]}).SerializeToString(), r"holds no image: shape \(2,\)"),
        (schema.BlobProto(data=[1, 2], **LEGACY).SerializeToString(), "2 values"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "mean.binaryproto"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_mean(str(path))


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"File not found: mean.binaryproto.*working directory"):
        read_mean("mean.binaryproto")
