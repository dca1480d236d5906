"""An SSD of two priors whose answers can be told from an image's colours, in which the two halves count."""

from __future__ import annotations

import pathlib

import numpy as np

from pycaffe.net import TEST, Net

# A prior in each half of the input's 6 columns: 3 by 3 pixels in the middle. The score of class 1 is the half's mean
# of blue / 255, that of class 2 its mean of green / 255.
LEFT, RIGHT = (0.0, 0.125, 0.5, 0.875), (0.5, 0.125, 1.0, 0.875)
MODEL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 6 } } }
layer { name: "halves" type: "Pooling" bottom: "data" top: "halves"
  pooling_param { pool: AVE kernel_h: 4 kernel_w: 3 stride_h: 4 stride_w: 3 } }
layer { name: "prior" type: "PriorBox" bottom: "halves" bottom: "data" top: "prior"
  prior_box_param { min_size: 3 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 } }
layer { name: "loc" type: "InnerProduct" bottom: "halves" top: "loc" inner_product_param { num_output: 8 } }
layer { name: "conf" type: "InnerProduct" bottom: "halves" top: "conf" inner_product_param { num_output: 6 } }
"""
OUTPUT = """
layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "found"
  detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 5 confidence_threshold: 0.1
    nms_param { nms_threshold: 0.45 top_k: 10 } } }
"""


def write_tiny_detector(folder: pathlib.Path, output: str = OUTPUT) -> tuple[str, str]:
    """Writes the net with its weights; returns the names of both files. With `output` "" it ends in loc and conf."""
    model, weights = folder / "detector.prototxt", folder / "detector.caffemodel"
    model.write_text(MODEL + output, encoding="utf-8")
    net = Net(model, TEST)
    for blob in (*net.params["loc"], *net.params["conf"]):
        blob.data[...] = 0
    matrix = net.params["conf"][0].data  # (half, class) from (channel, half)
    for half in range(2):
        for kind in (1, 2):
            matrix[3 * half + kind, 2 * (kind - 1) + half] = 1 / 255
    net.save(weights)
    return str(model), str(weights)


def halves(left: tuple[int, int, int], right: tuple[int, int, int], height: int = 8, width: int = 24) -> np.ndarray:
    """An image whose halves have these colours (blue, green, red)."""
    image = np.empty((height, width, 3), np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = left, right
    return image
