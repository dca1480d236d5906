from __future__ import annotations

import os
import pathlib

import pytest

from pycaffe.proto.replace_file import replacing
from tests.solvers.runs import full_disk


def write(path: pathlib.Path, text: str) -> None:
    with replacing(path) as temporary:
        pathlib.Path(temporary).write_text(text)


def test_the_file_is_replaced_and_a_link_to_it_stays(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_after_an_error_the_old_file_is_there_and_no_other(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file") as temporary:
        pathlib.Path(temporary).write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_an_error_names_the_file_that_was_to_be_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "none" / "file"
    with pytest.raises(FileNotFoundError) as error:
        write(path, "new")
    assert str(error.value) == f"[Errno 2] No such file or directory: '{path}'"


def test_on_a_full_disk_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "file"
    with full_disk(300), pytest.raises(OSError) as error:
        write(path, 1000 * "new")
    assert str(error.value).endswith(f"File too large: '{path}'")
    assert os.listdir(tmp_path) == []
