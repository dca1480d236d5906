from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe import parallel, rng
from pycaffe.errors import DataError, LayerError
from pycaffe.net import TRAIN
from tests.data.sources import enter_sources, run_golden_reader
from tests.layers.case import build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


def layer(param: str, transform: str = "") -> str:
    return (
        'layer { name: "l" type: "ImageData" top: "data" top: "label" '
        f"image_data_param {{ {param} }} transform_param {{ {transform} }} }}"
    )


@pytest.mark.parametrize("name", ["image_data", "image_data_crop", "image_data_gray", "image_data_root"])
def test_golden(name: str) -> None:
    run_golden_reader(name, rtol=0.01)  # a JPEG among them may decode a level or two apart


def make_images(count: int) -> None:
    for i in range(count):
        cv2.imwrite(f"{i}.png", np.full((4, 5, 3), (i, 2 * i, 3 * i), np.uint8))
    Path("own.txt").write_text("".join(f"{i}.png {i}\n" for i in range(count)))


@pytest.mark.parametrize("shuffle", [False, True])
def test_every_epoch_covers_each_image_once(shuffle: bool) -> None:
    rng.seed(1)
    make_images(7)
    net = build(layer(f'source: "own.txt" batch_size: 3 shuffle: {str(shuffle).lower()}'))
    labels: list[int] = []
    for _ in range(14):
        net.forward()
        labels += net.blobs["label"].data.astype(int).tolist()
        want = np.multiply.outer(net.blobs["label"].data, [1, 2, 3])
        np.testing.assert_array_equal(net.blobs["data"].data, np.broadcast_to(want[:, :, None, None], (3, 3, 4, 5)))
    epochs = [labels[i : i + 7] for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == (6 if shuffle else 1)


def test_shuffles_follow_the_seed() -> None:
    make_images(9)

    def draw() -> list[float]:
        rng.seed(2)
        net = build(layer('source: "own.txt" batch_size: 9 shuffle: true'))
        net.forward()
        return net.blobs["label"].data.tolist()

    assert draw() == draw() != list(range(9))


def test_rand_skip_starts_at_one_of_the_first_images() -> None:
    make_images(6)
    rng.seed(3)
    starts = set()
    for _ in range(40):
        net = build(layer('source: "own.txt" batch_size: 2 rand_skip: 4'))
        net.forward()
        first, second = net.blobs["label"].data
        assert second == first + 1
        starts.add(int(first))
    assert starts == {0, 1, 2, 3}


def test_rand_skip_past_the_end() -> None:
    make_images(1)
    rng.seed(0)
    with pytest.raises(LayerError, match=r"Not enough points to skip: \d+ of 1 \(rand_skip 1000000\)"):
        build(layer('source: "own.txt" rand_skip: 1000000'))


def test_random_crops_stay_in_the_image() -> None:
    rng.seed(4)
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    cv2.imwrite("one.png", image)
    Path("one.txt").write_text("one.png 5\n")
    net = build(layer('source: "one.txt"', "crop_size: 2"), phase=TRAIN)
    places = set()
    for _ in range(200):
        net.forward()
        top, left = divmod(int(net.blobs["data"].data[0, 0, 0, 0]) // 3, 6)
        np.testing.assert_array_equal(
            net.blobs["data"].data[0], image[top : top + 2, left : left + 2].transpose(2, 0, 1)
        )
        places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(5)}


def test_a_file_that_cannot_be_read_costs_one_pass() -> None:
    make_images(3)
    Path("1.png").unlink()
    net = build(layer('source: "own.txt"'))
    net.forward()
    with pytest.raises(DataError, match=r"Could not load 1\.png\. It is listed in 'own\.txt'.*layer 'l'"):
        net.forward()
    net.forward()
    assert net.blobs["label"].data.tolist() == [2]


@pytest.mark.parametrize(
    ("param", "transform", "error", "message"),
    [
        ('source: "list.txt" new_height: 4', "", LayerError, "new_height and new_width to be set at the same time"),
        ('source: "nowhere.txt"', "", DataError, "File is empty: could not open the image list: nowhere.txt"),
        ('source: "list.txt" batch_size: 0', "", LayerError, "Positive batch size required"),
        ('source: "list.txt"', "crop_size: 99", DataError, r"datum_height >= crop_size \(\d+ vs. 99\)"),
        ('source: "list.txt" root_folder: "elsewhere/"', "", DataError, "Could not load images/0.png"),
    ],
)
def test_bad_parameters(param: str, transform: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build(layer(param, transform))


def test_of_several_solvers_those_that_read_the_same_are_warned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(parallel, "solver_rank", lambda: 1)
    build(layer('source: "list.txt" shuffle: true', "crop_size: 9"), phase=TRAIN)
    assert caplog.messages == []
    build(layer('source: "list.txt"', "crop_size: 9"), phase=TRAIN)
    assert caplog.messages == ["Shuffling or skipping recommended for multi-GPU"]
