from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from pycaffe.data import DatabaseWriter, database_writer, datum_to_array, open_database, parse_datum, write_database
from pycaffe.data.open_database import LEVELDB, LMDB
from pycaffe.errors import DataError, InputError, MissingExtra
from pycaffe.proto import schema
from tests.layers.case import build
from tests.solvers.runs import full_disk

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), np.uint8)  # (N, C, H, W)
BACKENDS = {"lmdb": LMDB, "leveldb": LEVELDB}


def records(path: Path, backend: str) -> list[tuple[bytes, int, np.ndarray]]:
    result = []
    for key, value in open_database(str(path), BACKENDS[backend]).once():
        datum = parse_datum(value, "r")
        result.append((key, datum.label, datum_to_array(datum, "r")))
    return result


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_arrays_and_labels_come_back(tmp_path: Path, backend: str, dtype: type) -> None:
    images = IMAGES.astype(dtype) if dtype == np.uint8 else IMAGES.astype(dtype) / 8 - 3
    assert write_database(tmp_path / "db", images, [4, 3, 2, 1, -7], backend) == 5
    found = records(tmp_path / "db", backend)
    assert [key for key, _, _ in found] == [b"%08d" % i for i in range(5)]
    assert [label for _, label, _ in found] == [4, 3, 2, 1, -7]
    np.testing.assert_array_equal(np.stack([image for _, _, image in found]), images)
    assert os.listdir(tmp_path) == ["db"]


def test_images_of_a_generator_and_encoded_ones_reach_a_data_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoded = (cv2.imencode(".png", image.transpose(1, 2, 0))[1].tobytes() for image in IMAGES)
    write_database("db", encoded)
    net = build('layer { name: "l" type: "Data" top: "d" data_param { source: "db" backend: LMDB batch_size: 5 } }')
    net.forward()
    np.testing.assert_array_equal(net.blobs["d"].data, IMAGES)


def test_a_full_disk_leaves_no_database(tmp_path: Path) -> None:
    with (
        full_disk(20_000),
        pytest.raises(DataError, match=r"mdb_txn_commit: .*\(LMDB calls it so when the disk is full"),
    ):
        write_database(tmp_path / "db", np.zeros((9, 3, 40, 50), np.uint8))
    assert os.listdir(tmp_path) == []


def test_a_database_larger_than_the_first_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_writer, "FIRST_MAP_SIZE", 2**16)
    monkeypatch.setattr(database_writer, "RECORDS", 7)
    images = np.random.default_rng(1).integers(0, 256, (60, 3, 40, 50), np.uint8)
    write_database(tmp_path / "db", images)
    np.testing.assert_array_equal(np.stack([image for _, _, image in records(tmp_path / "db", "lmdb")]), images)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        ([], None, "There are no images"),
        (IMAGES, [1, 2], "There are 2 labels and more images"),
        (IMAGES[:2], [1, 2, 3], "There are 2 images and more labels"),
        (IMAGES[:2], [1, 2**31], "Label 1 is no integer of 32 bits: 2147483648"),
        (IMAGES[:1], ["cat"], "Label 0 is no integer of 32 bits: 'cat'"),
        ([np.zeros((4, 6))], None, r"\(channels, height, width\), all positive. Image 0 is \(4, 6\)"),
        ([np.zeros((1, 0, 6))], None, r"Image 0 is \(1, 0, 6\)"),
        ([np.zeros((1, 2, 3), int)], None, "Image 0 holds 'int64': convert it to uint8 or float32"),
    ],
)
def test_after_an_error_there_is_no_database(
    tmp_path: Path, backend: str, images: object, labels: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        write_database(tmp_path / "db", images, labels, backend)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with pytest.raises(DataError, match=r"mkdir .*db failed: it exists already"):
        write_database(tmp_path / "db", IMAGES)
    with pytest.raises(DataError, match=r"mkdir .*db failed: No such file or directory"):
        write_database(tmp_path / "nowhere" / "db", IMAGES)
    with pytest.raises(DataError, match=r"Unknown database backend: 'mdb' \(known: leveldb, lmdb\)"):
        write_database(tmp_path / "other", IMAGES, backend="mdb")
    assert os.listdir(tmp_path) == ["db"]


def test_a_record_that_the_backend_refuses_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Could not write the database"), DatabaseWriter(tmp_path / "db") as writer:
        writer.put(b"k" * 600, schema.Datum())  # LMDB's keys have 511 bytes at the most
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("backend", "library"), [("lmdb", "lmdb"), ("leveldb", "plyvel")])
def test_without_the_library_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=rf"Writing .* databases needs {library}.*pycaffe\[train\]"):
        write_database(tmp_path / "db", IMAGES, backend=backend)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_writer_leaves_nothing_that_looks_like_a_database(tmp_path: Path, backend: str) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        import numpy as np
        from pycaffe.data import write_database
        def images():
            for index in range(3000):
                yield np.zeros((1, 2, 3), np.uint8)
            os.kill(os.getpid(), signal.SIGKILL)
        write_database("db", images(), backend={backend!r})
    """)
    killed = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".db.")
    assert write_database(tmp_path / "db", IMAGES, backend=backend) == 5


def test_another_program_reads_what_is_written(tmp_path: Path) -> None:
    write_database(tmp_path / "db", IMAGES[:1], [6])
    with lmdb.open(str(tmp_path / "db"), readonly=True) as environment, environment.begin() as transaction:
        want = schema.Datum(channels=3, height=4, width=6, data=IMAGES[0].tobytes(), label=6)
        assert transaction.get(b"00000000") == want.SerializeToString()
