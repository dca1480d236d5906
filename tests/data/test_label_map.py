from __future__ import annotations

from pathlib import Path

import pytest

from pycaffe.data.label_map import labels_by_name, names_by_label, read_label_map
from pycaffe.errors import DataError

TEXT = """
item { name: "n01" label: 1 display_name: "dog" }
item { name: "n02" label: 2 }
item { name: "n01" label: 3 }
item { name: "n04" label: 2 }
"""


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "map.prototxt").write_text(text, encoding="utf-8")
    return tmp_path / "map.prototxt"


def test_names_and_labels(tmp_path: Path) -> None:
    label_map = read_label_map(write(tmp_path, TEXT))
    assert labels_by_name(label_map) == {"n01": 3, "n02": 2, "n04": 2}
    assert names_by_label(label_map) == {1: "n01", 2: "n04", 3: "n01"}
    assert names_by_label(label_map, display=True)[1] == "dog"
    with pytest.raises(DataError, match=r"There are many duplicates of name: n01\. It has the labels 1 and 3"):
        labels_by_name(label_map, strict=True)
    with pytest.raises(DataError, match=r"There are many duplicates of label: 2\. It has the names 'n02' and 'n04'"):
        names_by_label(label_map, strict=True)


def test_what_is_no_label_map(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Failed to read label map file"):
        read_label_map(tmp_path / "missing.prototxt")
    with pytest.raises(DataError, match=r"Failed to read label map file.*is empty"):
        read_label_map(write(tmp_path, "# nothing\n"))
    with pytest.raises(DataError, match=r"Failed to read label map file.*labels"):
        read_label_map(write(tmp_path, "item { labels: 3 }"))
