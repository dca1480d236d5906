"""Where drawings go."""

from __future__ import annotations

import os
import pathlib

import click
import numpy as np
import pytest

from pycaffe.cli._drawing import Drawing
from pycaffe.detection import Found

NOTHING = Found(np.empty(0, np.int64), np.empty(0, np.float32), np.empty((0, 4), np.float32))


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    for name in ("a/1.jpg", "a/deep/2.PNG", "b/1.jpg", "c.gif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("paths", "path", "expected"),
    [
        (["a"], "a/1.jpg", "1.jpg"),
        (["a"], "a/deep/2.PNG", "deep/2.PNG"),
        (["a", "b"], "b/1.jpg", "b/1.jpg"),
        (["a/1.jpg", "a/deep/2.PNG"], "a/deep/2.PNG", "deep/2.PNG"),
        (["c.gif"], "c.gif", "c.gif.jpg"),
        (["*.gif"], "c.gif", "c.gif.jpg"),
        (["a/*.jpg", "a/deep"], "a/1.jpg", "1.jpg"),
        (["[ab]/1.jpg"], "b/1.jpg", "b/1.jpg"),
        (["@list.txt"], "a/1.jpg", "a/1.jpg"),
        (["@list.txt"], "../x/1.jpg", "__/x/1.jpg"),
    ],
)
def test_drawings_lie_as_images_do_below_their_common_folder(paths: list[str], path: str, expected: str) -> None:
    assert os.path.relpath(Drawing("out", paths, {}).target(path)) == os.path.join("out", expected)


@pytest.mark.parametrize(
    ("draw", "paths"),
    [
        ("a", ["a"]),
        ("a/out", ["a"]),
        ("out", ["."]),
        (".", ["c.gif"]),
        ("a", ["a/1.jpg"]),
        ("out", ["**/*.jpg"]),
        ("out", ["*"]),
        ("out", ["*/1.jpg"]),
        ("a/out", ["b", "*/o*"]),
    ],
)
def test_folders_in_which_drawings_would_be_found_as_images(draw: str, paths: list[str]) -> None:
    with pytest.raises(click.UsageError, match=r"lies where .* finds images"):
        Drawing(draw, paths, {})


@pytest.mark.parametrize(
    ("draw", "paths"), [("out", ["*.gif"]), ("out", ["a", "b/*.jpg"]), ("a/out", ["a/*.jpg", "b"])]
)
def test_folders_beside_images(draw: str, paths: list[str]) -> None:
    Drawing(draw, paths, {})
    assert os.path.isdir(draw)


def test_an_image_is_never_replaced(folder: pathlib.Path) -> None:
    drawing = Drawing("out", ["a"], {})
    os.link("a/1.jpg", "out/1.jpg")
    with pytest.raises(FileExistsError, match=r"The drawing of 'a/1\.jpg' would replace it"):
        drawing.draw("a/1.jpg", NOTHING)
    assert pathlib.Path("a/1.jpg").read_bytes() == b"image"
