from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import DataError, LayerError
from pycaffe.proto import schema
from tests.data.sources import enter_sources
from tests.layers.case import build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


def layer(param: str, transform: str = "crop_size: 12") -> str:
    return (
        'layer { name: "l" type: "WindowData" top: "data" top: "label" '
        f"window_data_param {{ {param} }} transform_param {{ {transform} }} }}"
    )


def one_window(x1: int, y1: int, x2: int, y2: int) -> str:
    """A file with one foreground (class 7) and the same window as background."""
    rows, columns = cv2.imread("images/3.png").shape[:2]
    box = f"{x1} {y1} {x2} {y2}"
    Path("one.txt").write_text(f"# 0\nimages/3.png\n3\n{rows}\n{columns}\n2\n7 0.9 {box}\n1 0.1 {box}\n")
    return 'source: "one.txt" batch_size: 2 fg_fraction: 0.5 bg_threshold: 0.5'


def away(value: float) -> int:
    """C's round: halves away from zero."""
    return int(np.sign(value) * np.floor(abs(value) + 0.5))


def loop(box, crop, pad=0, square=False, mirrored=False, mean=None, scale=1.0):
    """The layer a pixel at a time, with exact linear interpolation (OpenCV rounds to a level)."""
    image = cv2.imread("images/3.png").astype(np.float64)
    rows, columns = image.shape[:2]
    mean = np.zeros((3, crop, crop)) if mean is None else mean
    x1, y1, x2, y2 = box
    left = top = right = 0
    width = height = crop
    if pad or square:
        context = crop / (crop - 2 * pad)
        half_w, half_h = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
        centre_x, centre_y = x1 + half_w, y1 + half_h
        if square:
            half_w = half_h = max(half_w, half_h)
        x1, x2 = away(centre_x - half_w * context), away(centre_x + half_w * context)
        y1, y2 = away(centre_y - half_h * context), away(centre_y + half_h * context)
        scale_x, scale_y = crop / (x2 - x1 + 1), crop / (y2 - y1 + 1)
        left, top = away(max(0, -x1) * scale_x), away(max(0, -y1) * scale_y)
        right = away(max(0, x2 - columns + 1) * scale_x)
        x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, columns - 1), min(y2, rows - 1)
        left = right if mirrored else left
        width, height = (
            min(away((x2 - x1 + 1) * scale_x), crop - left),
            min(away((y2 - y1 + 1) * scale_y), crop - top),
        )
    part = image[y1 : y2 + 1, x1 : x2 + 1]
    out = np.zeros((3, crop, crop))
    for h in range(height):
        for w in range(width):
            y = min(max((h + 0.5) * part.shape[0] / height - 0.5, 0), part.shape[0] - 1)
            x = min(max((w + 0.5) * part.shape[1] / width - 0.5, 0), part.shape[1] - 1)
            (y0, x0), (fy, fx) = (int(y), int(x)), (y % 1, x % 1)
            y1_, x1_ = min(y0 + 1, part.shape[0] - 1), min(x0 + 1, part.shape[1] - 1)
            upper = part[y0, x0] * (1 - fx) + part[y0, x1_] * fx
            lower = part[y1_, x0] * (1 - fx) + part[y1_, x1_] * fx
            column = left + (width - 1 - w if mirrored else w)
            out[:, top + h, column] = (upper * (1 - fy) + lower * fy - mean[:, top + h, column]) * scale
    return out


INSIDE, CORNER, FAR_CORNER = (20, 10, 39, 33), (1, 2, 20, 14), (50, 30, 68, 46)


@pytest.mark.parametrize("box", [INSIDE, CORNER, FAR_CORNER])
@pytest.mark.parametrize("pad", [0, 3])
@pytest.mark.parametrize("square", [False, True])
def test_warped_windows(box, pad: int, square: bool) -> None:
    mode = "square" if square else "warp"
    net = build(layer(f'{one_window(*box)} context_pad: {pad} crop_mode: "{mode}" scale: 0.5'))
    net.forward()
    assert net.blobs["data"].data.shape == (2, 3, 12, 12)
    assert net.blobs["label"].data.tolist() == [0, 7]
    want = loop(box, 12, pad, square, scale=0.5)
    for item in range(2):
        np.testing.assert_allclose(net.blobs["data"].data[item], want, atol=0.51)
        assert ((net.blobs["data"].data[item] != 0).any(axis=0) == (want != 0).any(axis=0)).all()


def test_mean_values_leave_the_padding_zero() -> None:
    net = build(
        layer(one_window(*CORNER) + " context_pad: 3", "crop_size: 12 mean_value: 10 mean_value: 20 mean_value: 30")
    )
    net.forward()
    mean = np.broadcast_to(np.array([10, 20, 30])[:, None, None], (3, 12, 12))
    np.testing.assert_allclose(net.blobs["data"].data[0], loop(CORNER, 12, 3, mean=mean), atol=1.01)


def test_the_centre_of_a_mean_file() -> None:
    mean = np.random.default_rng(0).uniform(0, 100, (3, 18, 17)).astype(np.float32)
    proto = schema.BlobProto(data=mean.ravel(), shape={"dim": [1, *mean.shape]})
    Path("own.binaryproto").write_bytes(proto.SerializeToString())
    net = build(layer(one_window(*CORNER) + " context_pad: 3", 'crop_size: 12 mean_file: "own.binaryproto"'))
    net.forward()
    centre = mean[:, 2:14, 2:14]  # (17 - 12) // 2 on both axes
    np.testing.assert_allclose(net.blobs["data"].data[0], loop(CORNER, 12, 3, mean=centre), atol=1.01)


def test_mirroring_takes_the_padding_along() -> None:
    rng.seed(1)
    net = build(layer(one_window(*FAR_CORNER) + " context_pad: 2", "crop_size: 12 mirror: true"))
    plain, mirrored = (loop(FAR_CORNER, 12, 2, mirrored=m) for m in (False, True))
    count = 0
    for _ in range(60):
        net.forward()
        for image in net.blobs["data"].data:
            is_mirrored = np.abs(image - mirrored).max() <= 1.01
            assert is_mirrored != (np.abs(image - plain).max() <= 1.01)
            count += is_mirrored
    assert 40 < count < 80


@pytest.mark.parametrize("cache", ["false", "true"])
def test_each_batch_has_its_share_of_foreground_and_all_windows_come(cache: str) -> None:
    rng.seed(2)
    net = build(layer(f'source: "windows.txt" batch_size: 7 fg_fraction: 0.6 cache_images: {cache}'))
    seen = set()
    for _ in range(60):
        net.forward()
        labels = net.blobs["label"].data
        assert (labels[:3] == 0).all() and (labels[3:] > 0).all()  # floor(7 * 0.6) = 4
        seen |= {(int(label), image.tobytes()) for label, image in zip(labels, net.blobs["data"].data)}
    assert sorted(label for label, _ in seen) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("param", "transform", "error", "message"),
    [
        ('source: "windows.txt" batch_size: 2', "", LayerError, r"crop_size > 0 \(0 vs. 0\)"),
        ('source: "windows.txt"', "crop_size: 9", LayerError, "Positive batch size required"),
        ('source: "windows.txt" batch_size: 2 context_pad: 6', "crop_size: 12", LayerError, "leaves nothing of"),
        ('source: "nowhere" batch_size: 2', "crop_size: 9", DataError, "Failed to open window file: nowhere"),
        ('source: "windows.txt" batch_size: 2 fg_threshold: 2', "crop_size: 9", DataError, r"fg_windows_.size\(\) > 0"),
        ('source: "windows.txt" batch_size: 2 bg_threshold: 0', "crop_size: 9", DataError, r"bg_windows_.size\(\) > 0"),
        (
            'source: "windows.txt" batch_size: 2', 'crop_size: 9 mean_file: "mean.binaryproto" mean_value: 1',
            LayerError, "Cannot specify mean_file and mean_value",
        ),
        (
            'source: "windows.txt" batch_size: 2', 'crop_size: 99 mean_file: "mean.binaryproto"', LayerError,
            r"has no centre of \(3, 99, 99\)",
        ),
        (
            'source: "windows.txt" batch_size: 2 root_folder: "no/" cache_images: true', "crop_size: 9", DataError,
            r"Could not open or find file images/0.png",
        ),
    ],
)  # fmt: skip
def test_bad_parameters(param: str, transform: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(layer(param, transform))


def test_a_window_outside_its_image() -> None:
    net = build(layer(one_window(60, 40, 75, 47)))
    with pytest.raises(DataError, match=r"leaves nothing inside image 'images/3\.png'"):
        net.forward()
