from __future__ import annotations

from pathlib import Path

import pytest

from pycaffe.data.image_list import read_image_list
from pycaffe.errors import DataError


def write(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    return str(path)


def test_the_label_stands_after_the_last_space(tmp_path: Path) -> None:
    content = b"a.jpg 3\nfolder/two words.png 12\r\n\nunlabelled.jpg\nb.jpg -1\n\xe9t\xe9.jpg 4.9\nNEL \xc2\x85.jpg 5"
    assert read_image_list(write(tmp_path, content)) == [
        ("a.jpg", 3), ("folder/two words.png", 12), ("unlabelled.jpg", 0), ("b.jpg", -1), ("\udce9t\udce9.jpg", 4),
        ("NEL \x85.jpg", 5),
    ]  # fmt: skip


def test_a_label_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"list.txt:2: 'cat' is no label"):
        read_image_list(write(tmp_path, b"a.jpg 1\nb.jpg cat\n"))


def test_an_empty_and_a_missing_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="File is empty: the image list"):
        read_image_list(write(tmp_path, b"\n \n"))
    with pytest.raises(DataError, match=r"could not open the image list: .*nowhere.*No such file"):
        read_image_list(str(tmp_path / "nowhere"))
