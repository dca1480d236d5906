from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.net import TRAIN, Net
from tests.layers.case import build, run_fork_golden

ANCHORS = ((1.0, 1.5), (2.5, 2.0))
BIASES = " ".join(f"biases: {number}" for anchor in ANCHORS for number in anchor)


@pytest.mark.parametrize("index", range(4))
def test_golden(index: int) -> None:
    assert run_fork_golden(f"regionloss_{index}") == ["torch"]


def layer(param: str) -> str:
    param = f"num: 2 num_class: 3 {BIASES} {param}"
    return (
        f'layer {{ name: "l" type: "RegionLoss" bottom: "b0" bottom: "b1" top: "t0" region_loss_param {{ {param} }} }}'
    )


def run(param: str, x: np.ndarray, labels: np.ndarray) -> Net:
    net = build(layer(param), x.shape, labels.shape, phase=TRAIN)
    net.blobs["b0"].data[...] = x
    net.blobs["b1"].data[...] = labels
    net.forward()
    net.blobs["t0"].diff[...] = 1
    net.backward()
    return net


def logistic(x):
    return 1 / (1 + np.exp(-x))


def test_an_image_without_objects_by_hand() -> None:
    x = np.random.default_rng(1).standard_normal((2, 16, 3, 3))
    net = run("noobject_scale: 0.5", x, np.zeros((2, 1, 7, 5)))
    p = logistic(x.reshape(2, 2, 8, 3, 3)[:, :, 4])
    delta = np.zeros((2, 2, 8, 3, 3))
    delta[:, :, 4] = 0.5 * p * p * (1 - p)
    np.testing.assert_allclose(net.blobs["b0"].diff, delta.reshape(x.shape) / 2, rtol=1e-5, atol=1e-8)
    assert net.blobs["t0"].data == pytest.approx((delta**2).sum() / 2, rel=1e-5)


def test_one_object_by_hand() -> None:
    x = np.zeros((1, 16, 4, 4))  # boxes in the middle of their cells, as large as the anchors
    label = [2, 0.4, 0.9, 0.5, 0.5]  # cell (3, 1), at (0.6, 0.6) in it; 2 x 2 cells: anchor 1 fits better
    net = run("rescore: 0 thresh: 2 object_scale: 5 class_scale: 3 coord_scale: 2", x, np.array([[label, [0] * 5]]))
    found = net.blobs["b0"].diff.reshape(2, 8, 4, 4)[1, :, 3, 1]
    scale = 2 * (2 - 0.25)
    want = [scale * (0.5 - 0.6) / 4] * 2 + [scale * -np.log(2 / 2.5), 0, 5 * (0.5 - 1) / 4, 1, 1, -2]
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-6)
    others = net.blobs["b0"].diff.reshape(2, 8, 4, 4).copy()
    others[1, :, 3, 1] = 0
    others[:, 4] = 0
    assert not others.any()
    assert not net.blobs["b1"].diff.any()


def test_a_centre_on_the_border_counts_for_the_last_cell() -> None:
    net = run("", np.zeros((1, 16, 4, 4)), np.array([[[0, 1, 1, 0.25, 0.375], [0] * 5]]))
    assert net.blobs["b0"].diff.reshape(2, 8, 4, 4)[0, 5:, 3, 3].any()


def test_the_loss_weight_scales_the_gradient() -> None:
    x, labels = np.random.default_rng(1).standard_normal((2, 16, 3, 3)), np.zeros((2, 7, 5))
    once = run("", x, labels).blobs["b0"].diff.copy()
    net = build(layer("").replace("top:", "loss_weight: 3 top:"), x.shape, labels.shape, phase=TRAIN)
    net.blobs["b0"].data[...] = x
    net.forward()
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff, 3 * once, rtol=1e-5)


def test_bad_labels() -> None:
    for label in ([3, 0.5, 0.5, 0.2, 0.2], [0, 0.5, 1.2, 0.2, 0.2], [0, 0.5, 0.5, np.nan, 0.2]):
        with pytest.raises(InputError, match=r"label 0 of image 0"):
            run("", np.zeros((1, 16, 4, 4)), np.array([[label]]))


def test_bad_input() -> None:
    with pytest.raises(LayerError, match=r"RegionLoss's boxes have 4 coords. Got 5"):
        build(layer("coords: 5"), (2, 16, 3, 3), (2, 7, 5))
    with pytest.raises(LayerError, match="Expected at least 6 numbers, got 4"):
        build(layer("").replace("num: 2", "num: 3"), (2, 24, 3, 3), (2, 7, 5))
    for shapes, message in (
        (((2, 17, 3, 3), (2, 7, 5)), "the channels hold 8 values for each of 2 boxes"),
        (((2, 16, 3, 4), (2, 7, 5)), "square planes and no further channels"),
        (((2, 18, 3, 3), (2, 7, 5)), "square planes and no further channels"),
        (((2, 16, 3, 3), (3, 7, 5)), "The labels hold rows of class, x, y, width, height"),
        (((2, 16, 3, 3), (2, 7, 4)), "The labels hold rows"),
    ):
        with pytest.raises(ShapeError, match=message):
            build(layer(""), *shapes)
