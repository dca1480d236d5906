from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from pycaffe.data import open_database
from pycaffe.data.open_database import LEVELDB
from pycaffe.errors import DataError, MissingExtra
from tests.data.sources import GOLDEN

# plyvel has no wheels for some systems; where it is missing only the error for that can be tested.
has_plyvel = importlib.util.find_spec("plyvel") is not None
with_plyvel = pytest.mark.skipif(not has_plyvel, reason="plyvel has no wheel for this Python")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "sized_leveldb", tmp_path / "db")
    return tmp_path / "db"


@with_plyvel
def test_records_come_in_the_order_of_their_keys_over_and_over(source: Path) -> None:
    database = open_database(str(source), LEVELDB)
    keys = [database.read()[0] for _ in range(15)]
    assert keys[:7] == [f"{i:08d}_images/{i}.{'png' if i < 6 else 'jpg'}".encode() for i in range(7)]
    assert keys[7:14] == keys[:7]
    assert database.peek()[0] == keys[1]


@with_plyvel
def test_the_database_is_not_written_and_may_be_read_twice_at_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    first, second = open_database(str(source), LEVELDB), open_database(str(source), LEVELDB)
    first.read()
    assert first.read()[0] != second.read()[0]
    del first, second
    gc.collect()
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
    assert list(tmp_path.iterdir()) == [source], "the folders of links are gone"


@with_plyvel
@pytest.mark.skipif(sys.platform == "win32", reason="there a folder with open files cannot be removed")
def test_the_folders_of_killed_readers_are_removed_and_those_of_living_ones_stay(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    script = textwrap.dedent(f"""
        import os, signal, sys
        from pycaffe.data import open_database
        database = open_database({str(source)!r}, 0)
        print("open", flush=True)
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "TMPDIR": str(folder)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"open\n"
        (of_reader,) = folder.iterdir()
        os.utime(of_reader, (0, 0))
        first = open_database(str(source), LEVELDB)
        assert of_reader.exists(), "its reader lives"
        reader.communicate()
    (of_first,) = set(folder.iterdir()) - {of_reader}
    open_database(str(source), LEVELDB)
    assert set(folder.iterdir()) >= {of_first}
    assert not of_reader.exists()
    assert len([first.read()[0] for _ in range(7)]) == 7


@with_plyvel
def test_a_folder_that_is_being_made_stays(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tmp"
    young = folder / "pycaffe-leveldb-young"
    young.mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    open_database(str(source), LEVELDB)
    assert young.exists()


@with_plyvel
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_goes_on_where_the_parent_was(source: Path) -> None:
    script = textwrap.dedent(f"""
        import os, sys
        from pycaffe.data import open_database
        database = open_database({str(source)!r}, 0)
        first = database.read()[0]
        child = os.fork()
        if child == 0:
            keys = [database.read()[0] for _ in range(7)]
            sys.exit(0 if keys[-1] == first and keys[0] > first else 1)  # as an exit that runs finalizers
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [database.read()[0] for _ in range(7)][-1] == first
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@with_plyvel
def test_systems_without_links_get_copies(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "symlink", refuse)
    assert open_database(str(source), LEVELDB).read()[0] == b"00000000_images/0.png"


@with_plyvel
def test_a_missing_database_is_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(source)
    with pytest.raises(DataError, match=r"Failed to open leveldb nowhere.*working directory"):
        open_database("nowhere", LEVELDB)
    with pytest.raises(DataError, match=r"CURRENT\. It is a database of the other kind: set backend: LMDB\.$"):
        open_database(str(GOLDEN / "sized_lmdb"), LEVELDB)


@with_plyvel
def test_an_empty_database_is_an_error(tmp_path: Path) -> None:
    import plyvel

    plyvel.DB(str(tmp_path / "db"), create_if_missing=True).close()
    with pytest.raises(DataError, match="is empty: it holds no record"):
        open_database(str(tmp_path / "db"), LEVELDB)


@with_plyvel
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:9000], r"Its table \d+\.ldb is truncated: it has 9000 bytes"),
        (
            lambda data: data[:5000] + b"\xff" * 100 + data[5100:],
            "is damaged: Corruption: block checksum mismatch.* Copy or make it again",
        ),
        (lambda data: None, "Failed to open leveldb .*missing files"),
    ],
    ids=["truncated", "flipped", "removed"],
)
def test_a_damaged_table_is_an_error(source: Path, damage, message: str) -> None:
    (table,) = source.glob("*.ldb")
    data = damage(table.read_bytes())
    table.unlink()
    if data is not None:
        table.write_bytes(data)
    with pytest.raises(DataError, match=message):
        open_database(str(source), LEVELDB)


def test_without_the_library_the_error_names_the_extra(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(MissingExtra, match=r"plyvel.*pycaffe\[train\]"):
        open_database(str(source), LEVELDB)
