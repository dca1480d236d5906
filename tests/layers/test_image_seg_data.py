"""ImageSegData: crops, filling, scales and the three kinds of labels, against NumPy."""

from __future__ import annotations

import pathlib

import cv2
import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import DataError, LayerError, NetError
from pycaffe.net import TEST, TRAIN, Net
from tests.layers.case import build

PIXEL = 'source: "list.txt" label_type: PIXEL '


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def net(param: str, transform: str = "", tops: int = 3, phase: int = TEST) -> Net:
    names = " ".join(f'top: "{name}"' for name in ("data", "label", "size")[:tops])
    text = f"image_data_param {{ {param} }} transform_param {{ {transform} }}"
    return build(f'layer {{ name: "l" type: "ImageSegData" {names} {text} }}', phase=phase)


def make_pairs(*sizes: tuple[int, int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images whose blue is their labels, and a list of them; returns both."""
    pairs = []
    for i, (height, width) in enumerate(sizes):
        labels = (40 * i + np.arange(height * width).reshape(height, width)).astype(np.uint8)
        image = np.stack([labels, 0 * labels, 255 - labels], axis=2)
        cv2.imwrite(f"{i}.png", image)
        cv2.imwrite(f"{i}_labels.png", labels)
        pairs.append((image, labels))
    pathlib.Path("list.txt").write_text("".join(f"{i}.png {i}_labels.png\n" for i in range(len(sizes))))
    return pairs


def test_as_they_are() -> None:
    (image, labels), _ = make_pairs((4, 6), (4, 6))
    reader = net(PIXEL + "batch_size: 2")
    assert reader.blobs["data"].data.shape == (2, 3, 4, 6)
    reader.forward()
    np.testing.assert_array_equal(reader.blobs["data"].data[0], image.transpose(2, 0, 1))
    np.testing.assert_array_equal(reader.blobs["label"].data[0, 0], labels)
    np.testing.assert_array_equal(reader.blobs["size"].data, [[[[4, 6]]]] * 2)


def test_small_images_are_filled_up_and_large_ones_cut_in_the_middle() -> None:
    (small, small_labels), (large, large_labels) = make_pairs((3, 9), (8, 10))
    reader = net(PIXEL + "batch_size: 2", "crop_size: 5 mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.5")
    reader.forward()
    data, label = reader.blobs["data"].data, reader.blobs["label"].data
    mean = np.array([10, 20, 30]).reshape(3, 1, 1)
    np.testing.assert_allclose(data[0, :, :3], (small.transpose(2, 0, 1)[:, :, 2:7] - mean) / 2)
    np.testing.assert_array_equal(data[0, :, 3:], np.zeros((3, 2, 5)))
    np.testing.assert_array_equal(label[0, 0, :3], small_labels[:, 2:7])
    assert (label[0, 0, 3:] == 255).all()
    np.testing.assert_allclose(data[1], (large.transpose(2, 0, 1)[:, 1:6, 2:7] - mean) / 2)
    np.testing.assert_array_equal(label[1, 0], large_labels[1:6, 2:7])
    np.testing.assert_array_equal(reader.blobs["size"].data.reshape(2, 2), [[3, 5], [5, 5]])


def test_labels_move_with_their_image() -> None:
    rng.seed(3)
    make_pairs((6, 8), (5, 7), (6, 6))
    reader = net(PIXEL + "batch_size: 3 shuffle: true", "crop_h: 3 crop_w: 4 mirror: true", tops=2, phase=TRAIN)
    seen = set()
    for _ in range(20):
        reader.forward()
        data, label = reader.blobs["data"].data, reader.blobs["label"].data
        assert data.shape == (3, 3, 3, 4)
        np.testing.assert_array_equal(data[:, :1], label)
        np.testing.assert_array_equal(data[:, 2:], 255 - label)
        seen |= {tuple(item[0, 0, :2]) for item in label}
    assert len(seen) > 30


def test_scale_factors() -> None:
    rng.seed(1)
    ((image, labels),) = make_pairs((4, 6))
    reader = net(PIXEL, "crop_size: 12 scale_factors: 0.5 scale_factors: 2 scale_factors: 1", tops=2)
    wanted = {}
    for factor in (0.5, 2, 1):
        size = (int(6 * factor), int(4 * factor))
        data, label = np.zeros((12, 12, 3)), np.full((12, 12), 255)
        data[: size[1], : size[0]] = cv2.resize(image, size)
        label[: size[1], : size[0]] = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        wanted[factor] = data, label
    seen = set()
    for _ in range(15):
        reader.forward()
        label = reader.blobs["label"].data[0, 0]
        factor = {2: 0.5, 8: 2, 4: 1}[int((label[:, 0] != 255).sum())]
        np.testing.assert_array_equal(label, wanted[factor][1])
        np.testing.assert_array_equal(reader.blobs["data"].data[0].transpose(1, 2, 0), wanted[factor][0])
        seen.add(factor)
    assert seen == {0.5, 1, 2}


@pytest.mark.parametrize(
    "kind, line, value", [("IMAGE", "0.png 7", 7), ("NONE", "0.png 7", 255), ("NONE ignore_label: 9", "0.png", 9)]
)
def test_one_label_for_all_pixels(kind: str, line: str, value: int) -> None:
    make_pairs((4, 6))
    pathlib.Path("list.txt").write_text(line)
    reader = net(f'source: "list.txt" new_height: 3 new_width: 5 label_type: {kind}')
    reader.forward()
    np.testing.assert_array_equal(reader.blobs["label"].data, np.full((1, 1, 3, 5), value))
    np.testing.assert_array_equal(reader.blobs["size"].data.ravel(), [3, 5])


def test_a_run_goes_on_where_it_stopped() -> None:
    rng.seed(4)
    make_pairs((6, 8), (6, 8), (6, 8))
    readers = [net(PIXEL + "shuffle: true", "crop_size: 4 mirror: true", phase=TRAIN) for _ in range(2)]
    layers = [reader.layers[0] for reader in readers]
    for _ in range(4):
        readers[0].forward()
    layers[1].restore(layers[0].state())
    for _ in range(4):
        found = []
        for reader in readers:
            reader.forward()
            found.append(reader.blobs["data"].data.copy())
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    "param, transform, error, message",
    [
        (PIXEL, 'mean_file: "mean.binaryproto"', LayerError, "ImageSegDataLayer does not support mean file"),
        (PIXEL + "new_height: 3", "", LayerError, "new_height and new_width to be set at the same time"),
        (PIXEL, "scale_factors: 0.5", LayerError, "scale_factors need a crop_size"),
        (PIXEL, "crop_size: 2 scale_factors: -1", LayerError, "and are positive"),
        (PIXEL + "batch_size: 0", "", LayerError, "Positive batch size required"),
        ('source: "word.txt"', "", DataError, "word.txt:1: 'cat.png' is no number"),
        ('source: "none.txt"', "", DataError, "File is empty: could not open the image list: none.txt"),
        ('source: "short.txt" label_type: PIXEL', "", DataError, "short.txt:1: '0.png' names no labels"),
        ('source: "gone.txt" label_type: PIXEL', "", DataError, "Could not load gone.png"),
        ('source: "wrong.txt" label_type: PIXEL', "", DataError, "Check failed: img_height == seg_height"),
    ],
)
def test_bad_input(param: str, transform: str, error: type[NetError], message: str) -> None:
    make_pairs((4, 6), (5, 6))
    for name, line in (
        ("short", "0.png"),
        ("word", "0.png cat.png"),
        ("gone", "gone.png 0_labels.png"),
        ("wrong", "0.png 1_labels.png"),
    ):
        pathlib.Path(f"{name}.txt").write_text(line)
    with pytest.raises(error, match=message):
        net(param, transform)


def test_sizes_that_differ_need_a_crop() -> None:
    make_pairs((4, 6), (5, 6))
    reader = net(PIXEL + "batch_size: 2")
    with pytest.raises(DataError, match="All images of a batch must have one size; set crop_size"):
        reader.forward()
