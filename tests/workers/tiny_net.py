"""A net of one layer, what it answers, and images for it."""

from __future__ import annotations

import pathlib

import numpy as np
import numpy.typing as npt

from pycaffe.net import TEST, Net

SHAPE = (3, 4, 5)
CLASSES = 7
MODEL = """
name: "tiny"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }
layer { name: "score" type: "InnerProduct" bottom: "data" top: "score" inner_product_param { num_output: 7 } }
"""


def write_tiny_net(folder: pathlib.Path) -> tuple[str, str]:
    """Writes the net with random weights; returns the names of both files."""
    model, weights = folder / "tiny.prototxt", folder / "tiny.caffemodel"
    model.write_text(MODEL, encoding="utf-8")
    net = Net(str(model), TEST)
    random = np.random.default_rng(7)
    for blob in net.params["score"]:
        blob.data[...] = random.standard_normal(blob.shape)
    net.save(str(weights))
    return str(model), str(weights)


def expected_scores(weights: str, model: str, data: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(7,) for data (3, 4, 5), by NumPy."""
    matrix, bias = (blob.data for blob in Net(model, TEST, weights=weights).params["score"])
    scores: npt.NDArray[np.float32] = matrix @ data.ravel() + bias
    return scores
