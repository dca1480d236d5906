from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import DataError, LayerError
from pycaffe.net import TEST, TRAIN, Net
from pycaffe.proto import schema
from tests.layers.case import build

HEIGHT, WIDTH = 6, 8


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(index: int, *objects: tuple[int, tuple[float, float, float, float]], typed: bool = True) -> Any:
    pixels = np.full((3, HEIGHT, WIDTH), index, np.uint8)
    datum = schema.Datum(channels=3, height=HEIGHT, width=WIDTH, data=pixels.tobytes(), label=index)
    made = schema.AnnotatedDatum(datum=datum)
    if typed:
        made.type = 0
    for label, box in objects:
        group = made.annotation_group.add(group_label=label)
        annotation = group.annotation.add(instance_id=label + 1)
        annotation.bbox.xmin, annotation.bbox.ymin, annotation.bbox.xmax, annotation.bbox.ymax = box
        annotation.bbox.difficult = label == 2
    return made


def write(*messages: Any) -> None:
    with lmdb.open("db", map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for index, message in enumerate(messages):
            transaction.put(b"%08d" % index, message.SerializeToString())


def net(batch_size: int = 2, transform: str = "", annotated: str = "", phase: int = TEST, tops: int = 2) -> Net:
    names = 'top: "data" top: "label"' if tops == 2 else 'top: "data"'
    return build(
        f'layer {{ name: "l" type: "AnnotatedData" {names} data_param {{ source: "db" backend: LMDB batch_size: '
        f"{batch_size} }} transform_param {{ {transform} }} annotated_data_param {{ {annotated} }} }}",
        phase=phase,
    )


LEFT, ALL = (0.0, 0.25, 0.5, 0.75), (0.0, 0.0, 1.0, 1.0)


def test_rows_of_a_batch_and_epochs() -> None:
    write(record(1, (1, LEFT), (2, ALL)), record(2), record(3, (4, (0.75, 0.75, 0.25, 0.25)), (3, (-1, -1, 0.5, 0.5))))
    made = net()
    want = [
        [[0, 1, 2, *LEFT, 0], [0, 2, 3, *ALL, 1]],  # images 1, 2: the second has no objects
        [[0, 3, 4, 0, 0, 0.5, 0.5, 0], [1, 1, 2, *LEFT, 0], [1, 2, 3, *ALL, 1]],  # 3, 1: inverted ones are dropped
        [[1, 3, 4, 0, 0, 0.5, 0.5, 0]],  # 2, 3
    ]
    for step, rows in enumerate(want):
        made.forward()
        assert made.blobs["label"].data.shape == (1, 1, len(rows), 8)
        np.testing.assert_allclose(made.blobs["label"].data[0, 0], rows)
        assert made.blobs["data"].data[:, 0, 0, 0].tolist() == [[1, 2], [3, 1], [2, 3]][step]


def test_without_any_objects_there_is_a_row_of_minus_1() -> None:
    write(record(1))
    made = net()
    made.forward()
    np.testing.assert_array_equal(made.blobs["label"].data, np.full((1, 1, 1, 8), -1))


def test_without_a_type_labels_are_those_of_the_images() -> None:
    write(record(5, (1, ALL), typed=False), record(6, typed=False))
    made = net()
    made.forward()
    assert made.blobs["label"].data.tolist() == [5, 6]
    made = net(annotated="anno_type: BBOX")
    made.forward()
    np.testing.assert_allclose(made.blobs["label"].data[0, 0], [[0, 1, 2, *ALL, 0]])
    made = net(tops=1)
    made.forward()
    assert made.blobs["data"].data.shape == (2, 3, HEIGHT, WIDTH)


def test_transformations_are_the_same_on_every_run_and_after_a_restore() -> None:
    write(*(record(index, (1, LEFT)) for index in range(1, 6)))
    text = "mirror: true resize_param { height: 12 width: 12 } expand_param { max_expand_ratio: 2 } mean_value: 1"
    sampler = "batch_sampler { sampler { min_scale: 0.5 } max_sample: 1 }"

    def batches(made: Net, count: int) -> list[np.ndarray]:
        found = []
        for _ in range(count):
            made.forward()
            found += [made.blobs["data"].data.copy(), made.blobs["label"].data.copy()]
        return found

    rng.seed(3)
    one = net(2, text, sampler, TRAIN)
    first = batches(one, 2)
    state = one.layers[0].state()
    rest = batches(one, 3)
    rng.seed(3)
    for got, want in zip(batches(net(2, text, sampler, TRAIN), 5), first + rest, strict=True):
        np.testing.assert_array_equal(got, want)
    two = net(2, text, sampler, TRAIN)
    two.layers[0].restore(state)
    for got, want in zip(batches(two, 3), rest, strict=True):
        np.testing.assert_array_equal(got, want)
    assert {array.shape for array in rest[::2]} == {(2, 3, 12, 12)}
    with pytest.raises(DataError, match="cannot go on reading"):
        two.layers[0].restore({"key": None})


def test_what_is_wrong() -> None:
    with pytest.raises(DataError, match="db"):
        net()
    write(record(1), record(2, typed=False))
    with pytest.raises(LayerError, match="Only support batch size of 1 for FIT_SMALL_SIZE"):
        net(transform="resize_param { height: 3 width: 3 resize_mode: FIT_SMALL_SIZE }")
    with pytest.raises(LayerError, match="Positive batch size required"):
        net(0)
    with pytest.raises(LayerError, match=r"min_scale\(\) > 0"):
        net(annotated="batch_sampler { sampler { min_scale: 0 } }")
    with pytest.raises(DataError, match="datum_height >= crop_size"):
        net(transform="crop_size: 7")
    made = net()
    with pytest.raises(DataError, match=r"Some datum misses AnnotationType.*00000001"):
        made.forward()


@pytest.mark.parametrize(
    ("message", "match"),
    [
        (schema.Datum(channels=1, height=1, width=1, data=b"1"), "is no AnnotatedDatum: it holds no image"),
        (schema.AnnotatedDatum(datum=schema.Datum(encoded=True, data=b"no image")), "Could not decode datum"),
        (schema.AnnotatedDatum(datum=schema.Datum(channels=3, height=0, width=4)), "datum_channels > 0"),
        (schema.AnnotatedDatum(datum=schema.Datum(channels=3, height=2, width=4, data=b"1")), "is too short"),
        (record(1, (1, (0.0, 0.0, float("nan"), 1.0))), "box is not finite"),
    ],
)
def test_damaged_records(message: Any, match: str) -> None:
    write(message)
    with pytest.raises(DataError, match=match):
        net()


def test_images_of_two_sizes() -> None:
    small = schema.AnnotatedDatum(datum=schema.Datum(channels=3, height=2, width=2, data=bytes(12)), type=0)
    write(record(1), small)
    made = net()
    with pytest.raises(DataError, match="all images of a batch must have one size"):
        made.forward()
    made = net(transform="resize_param { height: 4 width: 4 }")
    made.forward()
    assert made.blobs["data"].data.shape == (2, 3, 4, 4)
