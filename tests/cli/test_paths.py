from __future__ import annotations

import itertools
import os
import pathlib
import threading

import click
import pytest

from pycaffe.cli._paths import can_be_counted, expand


def test_a_list_is_read_line_by_line_as_bytes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "list").write_bytes(b"a b.png\n\n \n\xff.png\r\n  c.png")
    assert list(expand([f"@{tmp_path}/list"])) == ["a b.png", "\udcff.png\r", "  c.png"]


def test_a_list_through_a_pipe_is_not_waited_for_to_its_end(tmp_path: pathlib.Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ended = threading.Event()

    def feed() -> None:
        with open(pipe, "w", encoding="ascii", buffering=1) as file:
            file.write("a.png\n" * 5000)
            ended.wait(30)

    thread = threading.Thread(target=feed)
    thread.start()
    assert list(itertools.islice(expand([f"@{pipe}"]), 10)) == ["a.png"] * 10
    ended.set()
    thread.join()
    assert not can_be_counted([f"@{pipe}", "b"])


def test_what_can_be_gone_through_twice_can_be_counted(tmp_path: pathlib.Path) -> None:
    (tmp_path / "list").write_text("a\n", encoding="ascii")
    assert can_be_counted([f"@{tmp_path}/list", str(tmp_path), "*.png"])


def test_a_folder_is_not_read_to_its_end_before_the_first_path(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(100):
        (tmp_path / f"{index}.png").touch()
    read = 0

    class Entries:
        def __init__(self, folder: str) -> None:
            self.entries = real(folder)

        def __enter__(self) -> Entries:
            return self

        def __exit__(self, *exception: object) -> None:
            self.entries.close()

        def __iter__(self) -> Entries:
            return self

        def __next__(self) -> os.DirEntry[str]:
            nonlocal read
            read += 1
            return next(self.entries)

    real = os.scandir
    monkeypatch.setattr(os, "scandir", Entries)
    assert len(list(itertools.islice(expand([str(tmp_path)]), 3))) == 3
    assert read <= 4


def test_links_to_folders_are_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").touch()
    (tmp_path / "in" / "round.png").symlink_to(tmp_path)
    assert set(expand([str(tmp_path)])) == {str(tmp_path / "in" / "a.png"), str(tmp_path / "in" / "round.png")}


def test_a_folder_that_cannot_be_read_is_not_lost(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "a.png").touch()
    real = os.scandir

    def refusing(folder: str) -> object:
        if folder.endswith("below"):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    assert list(expand([str(tmp_path)])) == [str(tmp_path / "a.png"), str(tmp_path / "below")]


def test_globs_go_into_folders(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x1").mkdir()
    (tmp_path / "x1" / "a.png").touch()
    (tmp_path / "x2.txt").touch()
    assert set(expand([f"{tmp_path}/x*"])) == {str(tmp_path / "x1" / "a.png"), str(tmp_path / "x2.txt")}


@pytest.mark.parametrize(
    ("name", "message"), [("*.none", "No file matches"), ("@none", "Could not open or find file 'none'")]
)
def test_bad_names_are_said_at_once(name: str, message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        expand(["a.png", name])
