"""A LevelDB that lacks a part says so when it is opened; LevelDB itself would read the rest without a word."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pycaffe.data import open_database
from pycaffe.data.leveldb_files import check_files
from pycaffe.data.open_database import LEVELDB
from pycaffe.errors import DataError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("plyvel") is None, reason="plyvel has no wheel for this Python"
)
COUNT, SIZE = 100, 2000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with several tables, and a log with the last records."""
    import plyvel

    path = tmp_path_factory.mktemp("leveldb") / "db"
    random = np.random.default_rng(4)
    for start in range(0, COUNT, COUNT // 4):  # each opening makes a table of the log that it finds
        with plyvel.DB(str(path), create_if_missing=True) as database:
            for index in range(start, start + COUNT // 4):
                database.put(b"%08d" % index, random.bytes(SIZE))
    return path


@pytest.fixture
def source(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "db"))


def only(paths: Iterator[Path]) -> Path:
    (path,) = paths
    return path


def cut(path: Path, size: Callable[[int], int]) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: size(len(data))])


def count(source: Path) -> int:
    return sum(1 for _ in open_database(str(source), LEVELDB).once())


def test_a_whole_one_has_every_record(source: Path) -> None:
    assert len(list(source.glob("*.ldb"))) == 3
    assert only(source.glob("*.log")).stat().st_size > 32768, "more than a block"
    assert count(source) == COUNT


@pytest.mark.parametrize("size", [lambda n: n - 1, lambda n: n // 2, lambda n: 32768, lambda n: 3])
def test_a_log_that_is_cut_off(source: Path, size: Callable[[int], int]) -> None:
    log = only(source.glob("*.log"))
    cut(log, size)
    with pytest.raises(DataError, match=rf"Failed to open leveldb .*db\. Its file {log.name} is cut off.*again"):
        open_database(str(source), LEVELDB)


def test_as_the_error_says_leveldb_drops_what_is_cut_off(source: Path) -> None:
    cut(only(source.glob("*.log")), lambda n: n - 1)
    with pytest.raises(DataError, match="python -c") as error:
        open_database(str(source), LEVELDB)
    script = str(error.value).partition('python -c "')[2].partition('")')[0]
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert count(source) == COUNT - 1


def test_a_log_with_a_flipped_byte(source: Path) -> None:
    log = only(source.glob("*.log"))
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    with pytest.raises(DataError, match=r"Failed to open leveldb .*Corruption: checksum mismatch"):
        open_database(str(source), LEVELDB)


def test_a_log_that_is_missing(source: Path) -> None:
    log = only(source.glob("*.log"))
    log.unlink()
    with pytest.raises(DataError, match=rf"Its file {log.name}, which holds the last records, is missing"):
        open_database(str(source), LEVELDB)


def test_a_log_with_zeros_in_advance_is_whole(source: Path) -> None:
    with only(source.glob("*.log")).open("ab") as file:
        file.write(bytes(70000))
    assert count(source) == COUNT


def test_a_manifest_that_is_cut_off(tmp_path: Path) -> None:
    import plyvel

    source = tmp_path / "db"
    with plyvel.DB(str(source), create_if_missing=True) as database:
        database.put(b"first", b"a record")
    with plyvel.DB(str(source)) as database:
        database.put(b"second", b"another")
        database.compact_range()  # makes a table of the log, notes so in the manifest, and deletes the log
    assert count(source) == 2
    cut(only(source.glob("MANIFEST-*")), lambda n: n - 1)
    with pytest.raises(DataError, match=r"Its file \d+\.log, which holds .* is missing, or its manifest is cut off"):
        open_database(str(source), LEVELDB)
    cut(only(source.glob("MANIFEST-*")), lambda n: 20)
    with pytest.raises(DataError, match=r"Failed to open leveldb .*Corruption: no meta-nextfile"):
        open_database(str(source), LEVELDB)


def test_a_table_that_is_cut_off_is_found_out_before_a_record_of_it_is_read(source: Path) -> None:
    table = sorted(source.glob("*.ldb"))[-1]
    size = table.stat().st_size
    cut(table, lambda n: n - 1)
    with pytest.raises(DataError, match=rf"Its table {table.name} is truncated: it has {size - 1} bytes, .* {size}\."):
        open_database(str(source), LEVELDB)


@pytest.mark.parametrize("text", [b"", b"MANIFEST-0000", b"none\n"])
def test_a_current_that_names_no_manifest_is_left_to_leveldb(source: Path, text: bytes) -> None:
    (source / "CURRENT").write_bytes(text)
    check_files(str(source), "db")
    with pytest.raises(DataError, match=r"Failed to open leveldb .*Corruption"):
        open_database(str(source), LEVELDB)


def test_a_manifest_of_noise_is_left_to_leveldb(source: Path) -> None:
    manifest = only(source.glob("MANIFEST-*"))
    for seed in range(20):
        manifest.write_bytes(np.random.default_rng(seed).bytes(200))
        check_files(str(source), "db")
    with pytest.raises(DataError, match=r"Failed to open leveldb .*Corruption"):
        open_database(str(source), LEVELDB)


def test_one_that_was_compacted_and_one_that_was_repaired_are_whole(source: Path) -> None:
    import plyvel

    database = plyvel.DB(str(source))
    database.compact_range()
    database.delete(b"%08d" % 7)
    database.close()
    assert count(source) == COUNT - 1
    plyvel.repair_db(str(source))
    assert count(source) == COUNT - 1
