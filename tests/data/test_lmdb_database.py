from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import lmdb
import pytest

from pycaffe.data import open_database
from pycaffe.data.open_database import LMDB
from pycaffe.errors import DataError, MissingExtra


def make(folder: Path, records: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    return folder


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(make(tmp_path / "db", {b"c": b"3", b"a": b"1" * 9000, b"b": b""}))


def test_records_come_in_the_order_of_their_keys_over_and_over(source: str) -> None:
    database = open_database(source, LMDB)
    assert database.peek() == (b"a", b"1" * 9000)
    assert [database.read()[0] for _ in range(7)] == [b"a", b"b", b"c", b"a", b"b", b"c", b"a"]
    assert database.peek() == (b"b", b"")


def test_two_readers_of_one_database_do_not_disturb_each_other(source: str) -> None:
    first, second = open_database(source, LMDB), open_database(source, LMDB)
    assert [first.read()[0] for _ in range(2)] == [b"a", b"b"]
    assert second.read()[0] == b"a"
    del first
    gc.collect()
    assert second.read()[0] == b"b"


def test_the_environment_is_closed_with_its_last_reader(source: str) -> None:
    database = open_database(source, LMDB)
    database.read()
    del database
    gc.collect()
    lmdb.open(source).close()  # LMDB refuses to open a file twice in a process


def test_a_database_that_the_caller_holds_open_is_read_or_the_error_says_what_to_do(source: str) -> None:
    with lmdb.open(source):
        try:
            assert open_database(source, LMDB).read()[0] == b"a"  # releases of lmdb up to 1.4 at least
        except DataError as error:
            assert "already open in this process. Close that environment first." in str(error)


def test_a_folder_without_room_for_a_lock_file_is_read_without_one(source: str) -> None:
    os.remove(f"{source}/lock.mdb")
    os.mkdir(f"{source}/lock.mdb")
    assert open_database(source, LMDB).read()[0] == b"a"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_goes_on_where_the_parent_was(source: str) -> None:
    """In an interpreter of its own: a fork of the one that runs the tests would inherit its threads."""
    script = textwrap.dedent(f"""
        import os
        from pycaffe.data import open_database
        database, other = open_database({source!r}, 1), open_database({source!r}, 1)
        database.read()
        child = os.fork()
        if child == 0:
            os.chdir("/")
            keys = [database.read()[0] for _ in range(3)]
            fresh = open_database({source!r}, 1)
            os._exit(0 if keys == [b"b", b"c", b"a"] and other.read()[0] == fresh.read()[0] == b"a" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [database.read()[0] for _ in range(3)] == [b"b", b"c", b"a"]
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_a_missing_database_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"mdb_status == 0 .*No such file.*'nowhere'.*working directory, '.*'"):
        open_database("nowhere", LMDB)


def test_an_empty_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty: it holds no record"):
        open_database(str(make(tmp_path / "db", {})), LMDB)


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, r"empty \(0 bytes\)"), (100, "Could not open"), (8192, "is truncated"), (-4096, "is truncated")],
)
def test_a_file_that_was_cut_off_is_an_error_and_not_a_bus_error(source: str, size: int, message: str) -> None:
    file = Path(source) / "data.mdb"
    with file.open("r+b") as stream:
        stream.truncate(size if size >= 0 else file.stat().st_size + size)
    with pytest.raises(DataError, match=message):
        open_database(source, LMDB)


def test_another_kind_of_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no database" * 4000)
    with pytest.raises(DataError, match="Could not open the LMDB"):
        open_database(str(tmp_path), LMDB)


def test_without_the_library_the_error_names_the_extra(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingExtra, match=r"lmdb.*pycaffe\[train\]"):
        open_database(source, LMDB)
