from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from pycaffe.data import image_mean, open_database, write_database
from pycaffe.data.image_mean import compute_image_mean
from pycaffe.data.mean import read_mean, write_mean
from pycaffe.data.open_database import LMDB
from pycaffe.errors import DataError
from pycaffe.proto import schema
from tests.data.sources import enter_sources


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


def test_golden() -> None:
    """mean.binaryproto was written by the original's compute_image_mean."""
    mean = compute_image_mean(open_database("sized_lmdb", LMDB))
    want = read_mean("mean.binaryproto")
    np.testing.assert_allclose(mean, want, rtol=1e-6)
    write_mean("own.binaryproto", want)
    assert Path("own.binaryproto").stat().st_size == Path("mean.binaryproto").stat().st_size
    np.testing.assert_array_equal(read_mean("own.binaryproto"), want)
    assert schema.BlobProto.FromString(Path("own.binaryproto").read_bytes()).num == 1


def test_each_record_counts_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="pycaffe")
    monkeypatch.setattr(image_mean, "PROGRESS", 2)
    images = np.random.default_rng(0).standard_normal((5, 2, 3, 4)).astype(np.float32)
    write_database("db", images)
    database = open_database("db", LMDB)
    for _ in range(2):  # wherever the reader is
        database.read()
    np.testing.assert_allclose(compute_image_mean(database), images.mean(0), rtol=1e-5, atol=1e-6)
    assert database.read()[0] == b"00000000"
    assert [record.getMessage() for record in caplog.records] == [
        "Starting iteration", "Processed 2 files.", "Processed 4 files.", "Processed 5 files.",
    ]  # fmt: skip


def test_images_of_two_sizes() -> None:
    write_database("db", [np.zeros((1, 2, 3), np.uint8), np.zeros((1, 3, 3), np.uint8)])
    with pytest.raises(DataError, match=r"Incorrect data field size 9. Record '00000001' of 'db' has the shape"):
        compute_image_mean(open_database("db", LMDB))


def test_a_mean_file_that_cannot_be_written() -> None:
    with pytest.raises(DataError, match="Could not write the mean file 'nowhere/m': No such file or directory"):
        write_mean("nowhere/m", np.zeros((1, 2, 3), np.float32))
