"""DenseImageData: SegNet's own answers, images and labels that move together, broken lists."""

from __future__ import annotations

import pathlib

import cv2
import numpy as np
import pytest

import caffe
from pycaffe import rng
from pycaffe.errors import DataError, LayerError
from tests.layers.case import build

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "forks" / "data"


@pytest.fixture(autouse=True)
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def layer(param: str, transform: str = "") -> str:
    return (
        'layer { name: "l" type: "DenseImageData" top: "data" top: "label" '
        f"dense_image_data_param {{ {param} }} transform_param {{ {transform} }} }}"
    )


def make_pairs(count: int, height: int = 6, width: int = 8) -> None:
    """Images whose blue is their labels: pixel (y, x) of pair i holds 50 i + width y + x."""
    for i in range(count):
        labels = (50 * i + np.arange(height * width).reshape(height, width)).astype(np.uint8)
        cv2.imwrite(f"{i}.png", np.stack([labels, 0 * labels, 255 - labels], axis=2))
        cv2.imwrite(f"{i}_labels.png", labels)
    pathlib.Path("list.txt").write_text("".join(f"{i}.png {i}_labels.png\n" for i in range(count)))


@pytest.mark.parametrize("name", ["denseimagedata_0", "denseimagedata_1", "denseimagedata_2"])
def test_golden(name: str, folder: pathlib.Path) -> None:
    with np.load(GOLDEN / f"{name}.npz") as golden:
        for key in golden.files:
            if key.startswith("file/"):
                golden[key].tofile(folder / key[5:])
        net = caffe.Net(str(GOLDEN / f"{name}.prototxt"), caffe.TEST)
        for step in (1, 2, 3):
            net.forward()
            for top in ("data", "label"):
                np.testing.assert_allclose(net.blobs[top].data, golden[f"out{step}/{top}"], rtol=2e-5, atol=1e-6)


def test_labels_move_with_their_image() -> None:
    rng.seed(3)
    make_pairs(4)
    net = build(layer('source: "list.txt" batch_size: 4 crop_height: 3 crop_width: 5 mirror: true shuffle: true'))
    seen = set()
    for _ in range(20):
        net.forward()
        data, label = net.blobs["data"].data, net.blobs["label"].data
        assert data.shape == (4, 3, 3, 5) and label.shape == (4, 1, 3, 5)
        np.testing.assert_array_equal(data[:, :1], label)
        np.testing.assert_array_equal(data[:, 2:], 255 - label)
        seen |= {tuple(item[0, 0, :2]) for item in label}
    assert len(seen) > 40  # of 4 pairs, 16 places, 2 directions


def test_the_mean_is_the_images_alone() -> None:
    make_pairs(1)
    net = build(layer('source: "list.txt" batch_size: 1', "mean_value: 10 scale: 0.5"))
    net.forward()
    label = net.blobs["label"].data
    np.testing.assert_allclose(net.blobs["data"].data[:, :1], (label - 10) / 2)
    np.testing.assert_array_equal(label[0, 0, 0], np.arange(8))


def test_a_run_goes_on_where_it_stopped() -> None:
    rng.seed(4)
    make_pairs(5)
    text = layer('source: "list.txt" batch_size: 2 crop_height: 2 crop_width: 2 shuffle: true')
    net = build(text)
    for _ in range(3):
        net.forward()
    state = net.layers[0].state()
    want = [net.forward()["data"].copy() for _ in range(4)]
    other = build(text)
    other.layers[0].restore(state)
    for expected in want:
        np.testing.assert_array_equal(other.forward()["data"], expected)


@pytest.mark.parametrize(
    "param, transform, message",
    [
        ("new_height: 4", "", "new_height and new_width to be set at the same time. Got .4, 0."),
        ("crop_width: 4", "", "crop_height and crop_width to be set at the same time. Got .0, 4."),
        ("", "mirror: true", "Any stochastic transformation will break layer"),
        ("", "crop_size: 3", "Any stochastic transformation will break layer"),
    ],
)
def test_parameters_that_are_refused(param: str, transform: str, message: str) -> None:
    make_pairs(1)
    with pytest.raises(LayerError, match=message):
        build(layer(f'source: "list.txt" batch_size: 1 {param}', transform))


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "names no image"),
        ("0.png", "names 1 files. Expected pairs"),
        ("0.png missing.png", "Could not load missing.png. It is listed in 'list.txt'"),
        ("0.png other.png", "image heights and widths must match. '0.png' has .6, 8., 'other.png' has .3, 3."),
    ],
)
def test_lists_that_are_wrong(text: str, message: str) -> None:
    make_pairs(1)
    cv2.imwrite("other.png", np.zeros((3, 3), np.uint8))
    pathlib.Path("list.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        build(layer('source: "list.txt" batch_size: 1'))


def test_a_crop_larger_than_the_image() -> None:
    make_pairs(1)
    with pytest.raises(DataError, match=r"'0.png' of .6, 8. is smaller than the crop .7, 2."):
        build(layer('source: "list.txt" batch_size: 1 crop_height: 7 crop_width: 2'))
