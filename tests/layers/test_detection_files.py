from __future__ import annotations

import json
import logging
import pathlib

import numpy as np
import pytest

from pycaffe.errors import DataError, LayerError
from pycaffe.layers._detection_files import DetectionFiles, detection_files
from pycaffe.layers._output_boxes import output_boxes
from pycaffe.proto.schema import ResizeParameter, SaveOutputParameter
from tests.net.nets import data, layer, net_of

LABEL_MAP = "".join(f'item {{ name: "{name}" label: {label} }}\n' for label, name in enumerate(["none", "cat", "7"]))


@pytest.fixture
def param(tmp_path: pathlib.Path):
    (tmp_path / "labelmap.prototxt").write_text(LABEL_MAP)
    (tmp_path / "sizes.txt").write_text("a1 100 200\n0042 50 60\nunused 1 1\n")
    return SaveOutputParameter(
        output_directory=str(tmp_path / "out" / "deep"),
        output_name_prefix="det_",
        label_map_file=str(tmp_path / "labelmap.prototxt"),
        name_size_file=str(tmp_path / "sizes.txt"),
        num_test_image=2,
    )


def rows(*values: tuple[float, ...]) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 7)


FIRST = rows((0, 1, 0.5, 0.1, 0.2, 0.5001, 2), (0, 2, 0.25, -1, 0, 0.5, 0.5))
SECOND = rows((1, 1, 0.123456789, 0.5, 0.5, 1, 1))


def written(param, form: str) -> dict[str, str]:
    param.output_format = form
    files = DetectionFiles(param, 0)
    files.add(FIRST)
    folder = pathlib.Path(param.output_directory)
    assert not folder.exists()  # after the last image, not before
    files.add(SECOND)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_voc(param) -> None:
    assert written(param, "VOC") == {
        "det_cat.txt": "a1 0.5 20 20 100 100\n0042 0.123457 30 25 60 50\n",
        "det_7.txt": "a1 0.25 0 0 100 50\n",
    }


def test_ilsvrc(param) -> None:
    lines = ["a1 1 0.5 20 20 100 100", "a1 2 0.25 0 0 100 50", "0042 1 0.123457 30 25 60 50", ""]
    assert written(param, "ILSVRC") == {"det_.txt": "\n".join(lines)}


def test_coco(param) -> None:
    (text,) = written(param, "COCO").values()
    assert json.loads(text) == [
        {"image_id": "a1", "category_id": "cat", "bbox": [20, 20, 80.02, 80], "score": 0.5},
        {"image_id": "a1", "category_id": 7, "bbox": [0, 0, 100, 50], "score": 0.25},
        {"image_id": 42, "category_id": "cat", "bbox": [30, 25, 30, 25], "score": pytest.approx(0.12345679)},
    ]


def test_the_count_begins_again(param) -> None:
    param.output_format = "ILSVRC"
    files = DetectionFiles(param, 0)
    for image in (FIRST, SECOND, SECOND, rows()):
        files.add(image)
    (path,) = pathlib.Path(param.output_directory).iterdir()
    assert path.read_text() == "a1 1 0.123457 100 50 200 100\n"


def test_of_a_net(param) -> None:
    detection = f"""detection_output_param {{
        num_classes: 3 confidence_threshold: 0.4 save_output_param {{
            output_directory: "{param.output_directory}" output_name_prefix: "net" output_format: "ILSVRC"
            label_map_file: "{param.label_map_file}" name_size_file: "{param.name_size_file}" num_test_image: 2 }} }}"""
    inputs = data(2, 4, name="loc") + data(2, 3, name="conf") + data(1, 2, 4, name="prior")
    net = net_of(inputs + layer("y", "DetectionOutput", "loc conf prior", "y", detection))
    prior = [[[0.25, 0.5, 0.5, 1]], [[0.1] * 4]]
    net.forward(loc=np.zeros((2, 4)), conf=[[0, 0.5, 0.2], [0, 0, 0.75]], prior=np.array(prior).reshape(1, 2, 4))
    path = pathlib.Path(param.output_directory) / "net.txt"
    assert path.read_text() == "a1 1 0.5 50 50 100 100\n0042 2 0.75 15 25 30 50\n"


def resize(mode: str, **fields: int) -> ResizeParameter:
    return ResizeParameter(resize_mode=mode, height=300, width=300, **fields)


@pytest.mark.parametrize(
    ("param", "want"),
    [
        (None, [50, 20, 200, 80]),
        (resize("WARP"), [50, 20, 200, 80]),
        # 200 x 100 inside of 300 x 300: 75 rows of padding above and below
        (resize("FIT_LARGE_SIZE_AND_PAD"), [50, 0, 200, 100]),
        (resize("FIT_SMALL_SIZE"), [50, 20, 200, 80]),
        (resize("FIT_SMALL_SIZE", height_scale=50, width_scale=80), [20, 10, 96, 40]),
    ],
)
def test_boxes_in_pixels(param, want) -> None:
    boxes = np.array([[0.25, 0.2, 1.2, 0.8]], np.float32)
    np.testing.assert_allclose(output_boxes(boxes, (100, 200), param)[0], [want], rtol=1e-6, atol=1e-4)


def test_padding_at_the_sides() -> None:
    boxes = np.array([[0.25, 0.1, 0.5, 1]], np.float32)  # 100 x 200 takes the middle half of the width
    got = output_boxes(boxes, (200, 100), resize("FIT_LARGE_SIZE_AND_PAD"))[0]
    np.testing.assert_allclose(got, [[0, 20, 50, 200]], atol=1e-4)


def test_nothing_is_written_without_all_three_paths(param, caplog: pytest.LogCaptureFixture) -> None:
    assert detection_files(SaveOutputParameter(), 0) is None
    param.name_size_file = ""
    with caplog.at_level(logging.WARNING):
        assert detection_files(param, 0) is None
    assert "Provide name_size_file if output results to files" in caplog.text


def test_bad_inputs(param, tmp_path: pathlib.Path) -> None:
    with pytest.raises(LayerError, match="Cannot find label: 9 in the label map"):
        DetectionFiles(param, 0).add(rows((0, 9, 1, 0, 0, 1, 1)))
    with pytest.raises(LayerError, match="resize_height > 0"):
        output_boxes(np.zeros((1, 4)), (10, 10), ResizeParameter(resize_mode="WARP"))
    param.num_test_image = 4
    with pytest.raises(LayerError, match=r"num_test_image_ <= names_.size\(\) \(4 vs. 3\)"):
        DetectionFiles(param, 0)
    param.name_size_file = str(tmp_path / "missing.txt")
    with pytest.raises(DataError, match=r"Failed to open name size file: .*missing.txt"):
        DetectionFiles(param, 0)
    (tmp_path / "labelmap.prototxt").write_text(LABEL_MAP + 'item { name: "dog" label: 1 }')
    with pytest.raises(DataError, match="duplicates of label: 1"):
        DetectionFiles(param, 0)


def test_a_folder_that_cannot_be_made(param, tmp_path: pathlib.Path) -> None:
    (tmp_path / "out").write_text("a file")
    param.output_format, param.num_test_image = "COCO", 1
    with pytest.raises(DataError, match="Failed to write detections to"):
        DetectionFiles(param, 0).add(FIRST)
