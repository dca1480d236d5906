"""RegionDetectionOutput is YoloDetectionOutput."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import LayerError
from tests.layers.case import build
from tests.layers.test_yolo_detection_output import layer

TEXT = layer("num_classes: 3 confidence_threshold: 0.2").replace("YoloDetectionOutput", "RegionDetectionOutput")


def test_the_same_detections() -> None:
    x = np.random.default_rng(4).standard_normal((2, 16, 3, 4))
    found = []
    for text in (TEXT, layer("num_classes: 3 confidence_threshold: 0.2")):
        net = build(text, x.shape)
        net.blobs["b0"].data[...] = x
        net.forward()
        found.append(net.blobs["t0"].data.copy())
    assert found[0].shape[2] > 3
    np.testing.assert_array_equal(found[0], found[1])


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="Must specify num_classes"):
        build(layer("").replace("YoloDetectionOutput", "RegionDetectionOutput"), (2, 16, 3, 4))
