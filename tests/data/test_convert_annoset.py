"""convert_annoset and the annotation files that it reads; the command's flags."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pycaffe.cli import main
from pycaffe.data import datum_to_array, open_database
from pycaffe.data.annotated_datum import annotations_of, parse_annotated_datum
from pycaffe.data.convert_annoset import AnnotationFormat, convert_annoset
from pycaffe.data.convert_imageset import ImageFormat
from pycaffe.data.open_database import LMDB
from pycaffe.errors import DataError

HEIGHT, WIDTH = 20, 40
LABEL_MAP = 'item { name: "cat" label: 1 } item { name: "dog" label: 2 }'
XML = """<annotation><size><height>20</height><width>40</width></size>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>20</xmax><ymax>10</ymax>
</bndbox></object>
<object><name>cat</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>10.7</xmax><ymax>20</ymax></bndbox></object>
<object><name>dog</name><bndbox><xmin>8</xmin><ymin>5</ymin><xmax>20</xmax><ymax>10</ymax></bndbox></object>
</annotation>"""
DETECTION = AnnotationFormat("detection", label_map_file="map.prototxt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    cv2.imwrite("a.png", image)
    for name, text in (("a.xml", XML), ("map.prototxt", LABEL_MAP), ("list.txt", "a.png a.xml\n")):
        Path(name).write_text(text, encoding="utf-8")
    return tmp_path


def convert(annotations: AnnotationFormat = DETECTION, **options: Any) -> list[Any]:
    path = f"db{len(list(Path().iterdir()))}"
    convert_annoset("", "list.txt", path, annotations, options.pop("image_format", ImageFormat()), **options)
    return [parse_annotated_datum(value, "r") for _, value in open_database(path, LMDB).once()]


def test_voc() -> None:
    (record,) = convert()
    assert [(group.group_label, len(group.annotation)) for group in record.annotation_group] == [(2, 2), (1, 1)]
    objects = annotations_of(record, "r")
    assert objects.label.tolist() == [2, 2, 1]
    assert objects.instance.tolist() == [0, 1, 0]
    assert objects.difficult.tolist() == [True, False, False]
    np.testing.assert_allclose(objects.box, [[0.1, 0.25, 0.5, 0.5], [0.2, 0.25, 0.5, 0.5], [0, 0, 0.25, 1]])
    np.testing.assert_array_equal(datum_to_array(record.datum, "r"), cv2.imread("a.png").transpose(2, 0, 1))
    assert record.datum.label == -1
    np.testing.assert_allclose(objects.rows(3)[0], [3, 2, 0, 0.1, 0.25, 0.5, 0.5, 1])


def test_coco_and_text() -> None:
    content = {
        "image": {"height": HEIGHT, "width": WIDTH},
        "annotation": [
            {"category_id": "dog", "bbox": [4, 5, 16, 5], "iscrowd": 1},
            {"category_id": 7, "bbox": [0] * 4},
        ],
    }
    Path("map.prototxt").write_text(LABEL_MAP + 'item { name: "7" label: 5 }', encoding="utf-8")
    Path("a.xml").write_text(json.dumps(content), encoding="utf-8")
    objects = annotations_of(convert(DETECTION._replace(label_type="json"))[0], "r")
    assert objects.label.tolist() == [2, 5]
    assert objects.difficult.tolist() == [True, False]
    np.testing.assert_allclose(objects.box[0], [0.1, 0.25, 0.5, 0.5])
    Path("a.xml").write_text("3 4 5 20 10\n\n9 0 0 40 20\n", encoding="utf-8")
    objects = annotations_of(convert(DETECTION._replace(label_type="txt"))[0], "r")
    assert objects.label.tolist() == [3, 9]
    np.testing.assert_allclose(objects.box, [[0.1, 0.25, 0.5, 0.5], [0, 0, 1, 1]])


def test_boxes_stay_where_they_are_when_images_are_resized() -> None:
    for image_format, wanted in (
        (ImageFormat(30, 10), (30, 10)),
        (ImageFormat(min_dim=40), (40, 80)),
        (ImageFormat(max_dim=20), (10, 20)),
        (ImageFormat(min_dim=40, max_dim=60), (30, 60)),
        (ImageFormat(encoded=True), (HEIGHT, WIDTH)),
        (ImageFormat(gray=True), (HEIGHT, WIDTH)),
    ):
        (record,) = convert(image_format=image_format)
        assert (record.datum.height, record.datum.width) == wanted
        assert datum_to_array(record.datum, "r").shape[1:] == wanted
        assert record.datum.encoded == image_format.encoded
        np.testing.assert_allclose(annotations_of(record, "r").box[0], [0.1, 0.25, 0.5, 0.5])


def test_classification_and_the_order_of_the_list() -> None:
    Path("list.txt").write_text("a.png 7\na.png 8\n", encoding="utf-8")
    records = convert(AnnotationFormat())
    assert [record.datum.label for record in records] == [7, 8]
    assert not any(record.HasField("type") for record in records)
    assert len(convert(AnnotationFormat(), shuffle=True, check_size=True)) == 2


def test_what_is_left_out_or_doubtful_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Path("b.xml").write_text(XML.replace("<xmin>4<", "<xmin>44<").replace("<height>20", "<height>21"), encoding="utf-8")
    Path("c.xml").write_text("<annotation></annotation>", encoding="utf-8")
    Path("list.txt").write_text(
        "a.png a.xml\nmissing.png a.xml\na.png none.xml\na.png b.xml\na.png c.xml", encoding="utf-8"
    )
    with caplog.at_level(logging.INFO):
        records = convert()
    assert [len(annotations_of(record, "r").label) for record in records] == [3, 0, 3, 0]
    for line in (
        "A total of 5 images.",
        "Failed to read missing.png.",
        "none.xml does not exist: a.png is stored without objects.",
        "b.xml bounding box exceeds image boundary.",
        "b.xml bounding box irregular.",
        "b.xml inconsistent image height. It says 21, the image has 20.",
        "When parsing c.xml",
        "Processed 4 files.",
    ):
        assert line in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "match"),
    [
        (
            "map.prototxt",
            'item { name: "dogs" label: 1 }',
            r"Unknown name: dog\. a.xml names.*Did you mean 'dogs'",
        ),
        ("map.prototxt", LABEL_MAP + LABEL_MAP, "many duplicates of name: cat"),
        ("map.prototxt", "", "Failed to read label map file"),
        ("a.xml", "<annotation>", "a.xml is no annotation in VOC's XML"),
        ("a.xml", XML.replace("<name>cat</name>", ""), "object has no name"),
        ("a.xml", XML.replace("bndbox", "box"), "an object has no bndbox"),
        ("a.xml", XML.replace("<xmin>4</xmin>", ""), "bndbox has no xmin"),
        ("a.xml", XML.replace("<xmin>4<", "<xmin>nan<"), "no annotation in VOC's XML"),
        ("a.xml", XML.replace("<width>40<", "<width>0<"), "a.xml no valid image width/height"),
        ("list.txt", "a.png a.xml more", "list.txt:1: 'a.png a.xml more' is not `image annotation`"),
        ("list.txt", "\n", "File is empty"),
        ("list.txt", "no.png a.xml", "None of the 1 images"),
    ],
)
def test_broken_input_leaves_no_database(name: str, text: str, match: str) -> None:
    Path(name).write_text(text, encoding="utf-8")
    before = set(Path().iterdir())
    with pytest.raises(DataError, match=match):
        convert(DETECTION._replace(check_label=True))
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("kind", "text", "match"),
    [
        ("json", "{", "no annotation in COCO's JSON"),
        ("json", "[]", "no annotation in COCO's JSON"),
        ("json", '{"annotation": [{"category_id": "dog", "bbox": [1, 2, 3]}]}', "no annotation in COCO's JSON"),
        ("txt", "1 2 3 4", "a.xml:1: '1 2 3 4' is not `label xmin ymin xmax ymax`"),
        ("csv", "", "Unknown label type: 'csv'"),
    ],
)
def test_broken_annotations(kind: str, text: str, match: str) -> None:
    Path("a.xml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=match):
        convert(DETECTION._replace(label_type=kind))


def test_unknown_type_and_two_sizes() -> None:
    with pytest.raises(DataError, match="Unknown anno_type: 'segmentation'"):
        convert(AnnotationFormat("segmentation"))
    cv2.imwrite("b.png", np.zeros((3, 4, 3), np.uint8))
    Path("list.txt").write_text("a.png a.xml\nb.png a.xml", encoding="utf-8")
    with pytest.raises(DataError, match="Incorrect data field size 36"):
        convert(check_size=True)


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["-anno_type=detection", "--label_map_file=map.prototxt", "--label_type=xml", "--check_label", "--encoded"]
    with pytest.raises(SystemExit) as end:
        main(["convert_annoset", *flags, "--encode_type=jpg", "--min_dim=30", "./", "list.txt", "made"])
    err = capsys.readouterr().err
    assert end.value.code == 0, err
    assert "convert_annoset.cpp:121] A total of 1 images." in err
    ((_, value),) = open_database("made", LMDB).once()
    record = parse_annotated_datum(value, "r")
    assert (record.datum.height, record.datum.width, record.datum.encoded) == (30, 60, True)
    assert len(annotations_of(record, "r").label) == 3
