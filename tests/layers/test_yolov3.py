from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.net import TRAIN, Net
from tests.layers.case import build, run_fork_golden

ANCHORS = ((16, 24), (40, 32), (96, 64))
BIASES = " ".join(f"biases: {number}" for anchor in ANCHORS for number in anchor)


@pytest.mark.parametrize("index", range(9))
def test_golden(index: int) -> None:
    assert run_fork_golden(f"yolov3_{index}") == ["torch"]


def layer(param: str, mask: str = "mask: 1 mask: 2", num: int = 2) -> str:
    param = f"num: {num} num_class: 3 anchors_scale: 16 {BIASES} {mask} {param}"
    return f'layer {{ name: "l" type: "Yolov3" bottom: "b0" bottom: "b1" top: "t0" yolov3_param {{ {param} }} }}'


def run(param: str, x: np.ndarray, labels: np.ndarray) -> Net:
    net = build(layer(param), x.shape, labels.shape, phase=TRAIN)
    net.blobs["b0"].data[...] = x
    net.blobs["b1"].data[...] = labels
    net.forward()
    net.blobs["t0"].diff[...] = 1
    net.backward()
    return net


def test_an_image_without_objects_by_hand() -> None:
    x = np.random.default_rng(1).standard_normal((2, 16, 3, 4))
    net = run("", x, np.zeros((2, 1, 7, 5)))
    delta = np.zeros((2, 2, 8, 3, 4))
    delta[:, :, 4] = 1 / (1 + np.exp(-x.reshape(2, 2, 8, 3, 4)[:, :, 4]))
    np.testing.assert_allclose(net.blobs["b0"].diff, delta.reshape(x.shape) / 2, rtol=1e-5, atol=1e-8)
    assert net.blobs["t0"].data == pytest.approx((delta**2).sum() / 2, rel=1e-5)


LABEL = [2, 0.4, 0.5, 0.5, 0.5]  # in 4 x 5 cells: cell (2, 1), at (0.6, 0.5) in it; 32 x 40 pixels: anchor 1


@pytest.mark.parametrize("logic", [False, True])
def test_one_object_by_hand(logic: bool) -> None:
    x = np.zeros((1, 16, 5, 4))  # boxes in the middle of their cells, as large as the anchors
    switch = f"use_logic_gradient: {str(logic).lower()} object_scale: 3"
    net = run(f"thresh: 2 iou_thresh: 1 coord_scale: 2 class_scale: 4 label_smooth_eps: 0.2 {switch}", x,
              np.array([[LABEL, [0] * 5]]))  # fmt: skip
    found = net.blobs["b0"].diff.reshape(2, 8, 5, 4)[0, :, 2, 1]
    scale = 2 * (2 - 0.25)
    slope = np.array([0.25, 0.25, 1, 1, 0.25, 0.25, 0.25, 0.25]) if logic else 1
    boxes = [scale * (0.5 - 0.6), 0, scale * -np.log(32 / 40), scale * -np.log(40 / 32)]
    want = [*boxes, (0.5 - 1) * (3 if logic else 1), 4 * (0.5 - 0.1), 4 * (0.5 - 0.1), 4 * (0.5 - 0.9)]
    np.testing.assert_allclose(found, want * slope, rtol=1e-4, atol=1e-6)
    assert not net.blobs["b1"].diff.any()


def test_an_object_whose_anchor_another_layer_has_is_left_to_it() -> None:
    small = [[2, 0.4, 0.5, 16 / 64, 24 / 80], [0] * 5]  # anchor 0, which the mask leaves out
    net = run("thresh: 2 iou_thresh: 1", np.zeros((1, 16, 5, 4)), np.array([small]))
    diff = net.blobs["b0"].diff.reshape(2, 8, 5, 4).copy()
    assert (diff[:, 4] == 0.5).all()
    diff[:, 4] = 0
    assert not diff.any()


@pytest.mark.parametrize("kind", ["IOU", "GIOU", "DIOU", "CIOU"])
def test_descending_makes_a_box_overlap_more(kind: str) -> None:
    x, labels = np.zeros((1, 16, 5, 4)), np.array([[LABEL, [0] * 5]])
    losses = []
    for _ in range(60):
        net = run(f"iou_loss: {kind} thresh: 0.9 iou_thresh: 1 iou_normalizer: 1", x, labels)
        losses.append(float(net.blobs["t0"].data))
        x = x - 0.3 * net.blobs["b0"].diff
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("kind", ["IOU", "GIOU", "DIOU", "CIOU"])
def test_gradients_stay_finite_and_below_max_delta(kind: str) -> None:
    for value in (-200, 200):
        net = run(f"iou_loss: {kind} max_delta: 0.5", np.full((1, 16, 5, 4), value), np.array([[LABEL, [0] * 5]]))
        boxes = net.blobs["b0"].diff.reshape(2, 8, 5, 4)[:, :4]
        assert np.isfinite(boxes).all()
        assert np.abs(boxes).max() <= 0.5


def test_bad_labels() -> None:
    for label in ([3, 0.5, 0.5, 0.2, 0.2], [0, -0.5, 0.5, 0.2, 0.2], [0, 0.5, 0.5, np.inf, 0.2]):
        with pytest.raises(InputError, match=r"label 0 of image 0"):
            run("", np.zeros((1, 16, 5, 4)), np.array([[label]]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (layer("", mask="mask: 1"), "a mask of as many"),
        (layer("", num=0), "num > 0 anchors"),
        (layer("").replace("anchors_scale: 16", "anchors_scale: 0"), "anchors_scale > 0"),
        (layer("", mask="mask: 1 mask: 3"), "Expected at least 8 numbers, got 6"),
        (layer("", mask="mask: 1 mask: 4294967295"), "Expected at least 8589934592 numbers"),
    ],
)
def test_bad_parameters(text: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(text, (2, 16, 3, 4), (2, 7, 5))


def test_bad_shapes() -> None:
    for shapes, message in (
        (((2, 17, 3, 4), (2, 7, 5)), "the channels hold 8 values for each of 2 boxes"),
        (((2, 18, 3, 4), (2, 7, 5)), "input_count == tmp_input_count"),
        (((2, 16, 3, 4), (2, 7, 6)), "The labels hold rows"),
    ):
        with pytest.raises(ShapeError, match=message):
            build(layer(""), *shapes)
