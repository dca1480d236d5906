from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError, ShapeError
from tests.layers.case import build, run_fork_golden

ANCHORS = ((1.5, 2.0), (3.0, 1.25))
BIASES = " ".join(f"biases: {number}" for anchor in ANCHORS for number in anchor)


@pytest.mark.parametrize("index", range(6))
def test_golden(index: int) -> None:
    assert run_fork_golden(f"yolodetectionoutput_{index}") == ["torch"]


def layer(param: str, bottoms: int = 1) -> str:
    names = " ".join(f'bottom: "b{i}"' for i in range(bottoms))
    param = f"num_box: 2 {BIASES} {param}"
    return (
        f'layer {{ name: "l" type: "YoloDetectionOutput" {names} top: "t0" yolo_detection_output_param {{ {param} }} }}'
    )


def predicted(x, classes, threshold):
    """All boxes above the threshold by a plain loop: (score, label, x, y, width, height)."""
    found = []
    for n, h, w, a in np.ndindex(x.shape[0], *x.shape[2:], 2):
        values = x[n, a * (5 + classes) : (a + 1) * (5 + classes), h, w].astype(float)
        chances = np.exp(values[5:]) / np.exp(values[5:]).sum()
        score = chances.max() / (1 + np.exp(-values[4]))
        if score >= threshold:
            centre = (w + 1 / (1 + np.exp(-values[0]))) / x.shape[3], (h + 1 / (1 + np.exp(-values[1]))) / x.shape[2]
            size = np.exp(values[2]) * ANCHORS[a][0] / x.shape[3], np.exp(values[3]) * ANCHORS[a][1] / x.shape[2]
            found.append((score, chances.argmax(), *centre, *size))
    return sorted(found, reverse=True)


def test_against_a_loop_without_suppression() -> None:
    generator = np.random.default_rng(1)
    arrays = [generator.standard_normal((2, 16, 3, 4)), generator.standard_normal((2, 16, 5, 2))]
    net = build(layer("num_classes: 3 confidence_threshold: 0.3 nms_threshold: 1.1", 2), *(a.shape for a in arrays))
    for i, array in enumerate(arrays):
        net.blobs[f"b{i}"].data[...] = array
    net.forward()
    want = sorted((box for array in arrays for box in predicted(array, 3, 0.3)), reverse=True)
    rows = net.blobs["t0"].data[0, 0]
    assert len(rows) == len(want) > 20
    np.testing.assert_allclose(rows[:, 2], [box[0] for box in want], rtol=1e-5)
    np.testing.assert_array_equal(rows[:, 1], [box[1] + 1 for box in want])
    x, y, width, height = np.transpose([box[2:] for box in want])
    sides = np.transpose([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    np.testing.assert_allclose(rows[:, 3:], sides, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
def test_numbers_that_are_none(value: float) -> None:
    net = build(layer("num_classes: 3"), (2, 16, 3, 4))
    net.blobs["b0"].data[...] = value
    net.forward()
    assert net.blobs["t0"].data.shape[3] == 7
    if not np.isfinite(value):
        assert net.blobs["t0"].data[0, 0, :, 1].tolist() == [-1, -1]


def test_bad_input() -> None:
    for param in ("", "num_classes: 0"):
        with pytest.raises(LayerError, match="Must specify num_classes"):
            build(layer(param), (2, 16, 3, 4))
    with pytest.raises(LayerError, match="Expected at least 6 numbers, got 4"):
        build(layer("num_classes: 3").replace("num_box: 2", "num_box: 3"), (2, 24, 3, 4))
    for classes in (4, 1_000_000_000):
        with pytest.raises(ShapeError, match=f"the channels hold {classes + 5} values for each of 2 boxes"):
            build(layer(f"num_classes: {classes}"), (2, 16, 3, 4))
    with pytest.raises(ShapeError, match="bottoms have one batch size"):
        build(layer("num_classes: 3", 2), (2, 16, 3, 4), (3, 16, 3, 4))
