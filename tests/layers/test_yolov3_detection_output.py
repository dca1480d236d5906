from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, run_fork_golden

ANCHORS = ((10.0, 14.0), (23.0, 27.0), (37.0, 58.0), (81.0, 82.0))
BIASES = " ".join(f"biases: {number}" for anchor in ANCHORS for number in anchor)
MASKS = "mask: 2 mask: 3 mask: 0 mask: 1 anchors_scale: 32 anchors_scale: 16"


@pytest.mark.parametrize("index", range(5))
def test_golden(index: int) -> None:
    assert run_fork_golden(f"yolov3detectionoutput_{index}") == ["torch"]


def layer(param: str, bottoms: int = 2) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    return (
        f'layer {{ name: "l" type: "Yolov3DetectionOutput" {names} top: "t0" '
        f"yolov3_detection_output_param {{ {BIASES} {param} }} }}"
    )


def logistic(x):
    return 1 / (1 + np.exp(-x))


def predicted(x, anchors, stride, classes, threshold, gaussian):
    """All detections above the threshold by a plain loop: (score, label, x, y, width, height)."""
    found, length = [], classes + (9 if gaussian else 5)
    height, width = x.shape[2:]
    for n, h, w, a in np.ndindex(x.shape[0], height, width, 2):
        values = x[n, a * length : (a + 1) * length, h, w].astype(float)
        certain = 1.0
        if gaussian:
            certain = 1 - logistic(values[1:8:2]).mean()
            values = np.concatenate((values[:8:2], values[8:]))
        for label in range(classes):
            score = logistic(values[4]) * logistic(values[5 + label]) * certain
            if score > threshold:
                centre = (w + logistic(values[0])) / width, (h + logistic(values[1])) / height
                size = (
                    np.exp(values[2]) * anchors[a][0] / width / stride,
                    np.exp(values[3]) * anchors[a][1] / height / stride,
                )
                found.append((score, label, *centre, *size))
    return found


@pytest.mark.parametrize("gaussian", [False, True])
def test_against_a_loop_without_suppression(gaussian: bool) -> None:
    generator = np.random.default_rng(1)
    channels = 2 * (12 if gaussian else 8)
    arrays = [generator.standard_normal((2, channels, 2, 3)), generator.standard_normal((2, channels, 4, 6))]
    threshold = 0.15 if gaussian else 0.3
    param = f"num_classes: 3 num_box: 2 {MASKS} confidence_threshold: {threshold} nms_threshold: 1.1"
    net = build(layer(param + " gaussian_box: true" * gaussian), *(array.shape for array in arrays))
    for i, array in enumerate(arrays):
        net.blobs[f"b{i}"].data[...] = array
    net.forward()
    want = predicted(arrays[0], ANCHORS[2:], 32, 3, threshold, gaussian)
    want = sorted(want + predicted(arrays[1], ANCHORS[:2], 16, 3, threshold, gaussian), reverse=True)
    rows = net.blobs["t0"].data[0, 0]
    assert len(rows) == len(want) > 20
    np.testing.assert_allclose(rows[:, 2], [box[0] for box in want], rtol=1e-5)
    np.testing.assert_array_equal(rows[:, 1], [box[1] + 1 for box in want])
    x, y, width, height = np.transpose([box[2:] for box in want])
    sides = np.transpose([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    np.testing.assert_allclose(rows[:, 3:], sides, rtol=1e-4, atol=1e-5)


def test_numbers_that_are_none() -> None:
    net = build(layer(f"num_classes: 3 num_box: 2 {MASKS}"), (2, 16, 3, 4), (2, 16, 6, 8))
    for blob in (net.blobs["b0"], net.blobs["b1"]):
        blob.data[...] = np.nan
    net.forward()
    assert net.blobs["t0"].data[0, 0, :, 0].tolist() == [0, 1]
    assert (net.blobs["t0"].data[0, 0, :, 1:] == -1).all()


@pytest.mark.parametrize(
    ("param", "message"),
    [
        (f"num_box: 2 {MASKS}", "Must specify num_classes"),
        (f"num_classes: 3 num_box: 2 mask_group_num: 3 {MASKS}", r"bottom.size\(\) == mask_group_num_ \(2 vs. 3\)"),
        (f"num_classes: 3 num_box: 1 {MASKS}", "Each bottom takes num_box numbers of mask"),
        ("num_classes: 3 num_box: 1 mask: 0 mask: 1 anchors_scale: 32", "one of anchors_scale"),
        (f"num_classes: 3 num_box: 2 {MASKS}".replace("mask: 3", "mask: 4"), "Expected at least 10 numbers, got 8"),
        (f"num_classes: 3 num_box: 2 {MASKS}".replace("mask: 3", "mask: 4294967295"), "Expected at least 8589934592"),
        (f"num_classes: 3 num_box: 2 {MASKS}".replace("anchors_scale: 16", "anchors_scale: 0"), "is positive"),
    ],
)
def test_bad_parameters(param: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        build(layer(param), (2, 16, 3, 4), (2, 16, 6, 8))


def test_bad_shapes() -> None:
    with pytest.raises(ShapeError, match="the channels hold 1000000005 values for each of 2 boxes"):
        build(layer(f"num_classes: 1000000000 num_box: 2 {MASKS}"), (2, 16, 3, 4), (2, 16, 6, 8))
    with pytest.raises(ShapeError, match="bottoms have one batch size"):
        build(layer(f"num_classes: 3 num_box: 2 {MASKS}"), (2, 16, 3, 4), (3, 16, 6, 8))
