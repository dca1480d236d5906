from __future__ import annotations

import pathlib

import pytest

from pycaffe.detection import names_for, read_class_names
from pycaffe.errors import DataError, InputError
from pycaffe.net import TEST, Net

LABEL_MAP = """
item { name: "none_of_the_above" label: 0 display_name: "background" }
item { name: "n02" label: 2 display_name: "cat" }
item {
  name: "n01"
  label: 1
}
"""
YOLO = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 35 dim: 2 dim: 3 } } }
layer { name: "found" type: "YoloDetectionOutput" bottom: "data" top: "found"
  yolo_detection_output_param { num_classes: 2 biases: 1 biases: 1 biases: 2 biases: 2 biases: 3 biases: 3 biases: 4
    biases: 4 biases: 5 biases: 5 } }
"""


def write(folder: pathlib.Path, text: str) -> str:
    path = folder / "labels"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("text", ["background\ncat\ndog é\n", "cat\n dog é \n\n"])
def test_a_list_with_or_without_the_background(detector: tuple[str, str], tmp_path: pathlib.Path, text: str) -> None:
    names = read_class_names(write(tmp_path, text))
    assert names_for(Net(detector[0], TEST), names) == {1: "cat", 2: "dog é"}


def test_a_label_map(detector: tuple[str, str], tmp_path: pathlib.Path) -> None:
    names = read_class_names(write(tmp_path, LABEL_MAP))
    assert names == {0: "background", 2: "cat", 1: "n01"}
    assert names_for(Net(detector[0], TEST), names) == {2: "cat", 1: "n01"}


def test_yolo_counts_from_one(tmp_path: pathlib.Path) -> None:
    net = Net(write(tmp_path, YOLO), TEST)
    assert names_for(net, ["cat", "dog"]) == names_for(net, ["none", "cat", "dog"]) == {1: "cat", 2: "dog"}


def test_a_net_without_a_detection_layer_counts_from_zero(net: tuple[str, str]) -> None:
    assert names_for(Net(net[0], TEST), ["cat", "dog"]) == {0: "cat", 1: "dog"}


def test_another_nets_list(detector: tuple[str, str]) -> None:
    with pytest.raises(InputError, match="There are 4 labels, and the net's DetectionOutput has 3 classes"):
        names_for(Net(detector[0], TEST), ["a", "b", "c", "d"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n \n", "it is empty"),
        ("item { name: 3", "Failed to read label map file"),
        ('item { name: "a" label: 1 } item { name: "b" label: 1 }', "There are many duplicates of label: 1"),
    ],
)
def test_files_that_are_neither(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_class_names(write(tmp_path, text))


def test_a_file_that_is_missing_or_no_text(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match=r"Could not read the labels '.*missing': .*No such file"):
        read_class_names(tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"Could not read the labels '.*binary': 'utf-8' codec"):
        read_class_names(tmp_path / "binary")
