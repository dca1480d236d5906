from __future__ import annotations

from pathlib import Path

import pytest

from pycaffe.data.window_file import Window, read_window_file
from pycaffe.errors import DataError

TEXT = """# 0
a.png
3
40
52
3
1 0.9 2 3 20 22
2 0.4 5 4 30 30
1 0.2 1 1 12 15
# 1
b.png 3 48 70
1
7 0.5 0 0 3 4
"""


def read(tmp_path: Path, text: str, fg: float = 0.5, bg: float = 0.3):
    path = tmp_path / "windows.txt"
    path.write_text(text)
    return read_window_file(str(path), fg, bg)


def test_windows_are_told_apart_by_their_overlap(tmp_path: Path) -> None:
    windows = read(tmp_path, TEXT)
    assert windows.images == ["a.png", "b.png"]
    assert windows.channels == 3
    assert windows.foreground == [Window(0, 1, 2, 3, 20, 22), Window(1, 7, 0, 0, 3, 4)]
    assert windows.background == [Window(0, 0, 1, 1, 12, 15)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Window file is empty"),
        ("0 a.png", r'hashtag == "#" \(0 vs. #\)'),
        (TEXT[:-4], "ends early: .*image 1"),
        (TEXT.replace("0.9", "much"), "Expected a number, got 'much'"),
        (TEXT.replace("# 1", "# 4"), "count from 0: got 4"),
        (TEXT.replace("1 0.9", "0 0.9"), r"label > 0 \(0 vs. 0\) for a foreground window"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Failed to open window file: .*nowhere"):
        read_window_file(str(tmp_path / "nowhere"), 0.5, 0.5)
