"""BoxAnnotatorOHEM: R-FCN's answers, a loop, ties and hostile values, and bad input."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.net import Net
from tests.layers.case import build, check_layer, run_fork_golden


def layer(param: str) -> str:
    return (
        'layer { name: "l" type: "BoxAnnotatorOHEM" bottom: "b0" bottom: "b1" bottom: "b2" bottom: "b3" '
        f'top: "labels" top: "weights" box_annotator_ohem_param {{ {param} }} }}'
    )


def hardest(rois: np.ndarray, losses: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> list[np.ndarray]:
    """Three of each image, by a sort of all positions."""
    out = np.full_like(labels, -7), np.zeros_like(weights)
    left = dict.fromkeys(range(4), 3)
    positions = [(n, h, w) for n, _, h, w in np.ndindex(losses.shape)]
    for n, h, w in sorted(positions, key=lambda at: -losses[at[0], 0, at[1], at[2]]):
        image = int(rois[n, 0, h, w])
        if left[image]:
            left[image] -= 1
            out[0][n, 0, h, w], out[1][n, :, h, w] = labels[n, 0, h, w], weights[n, :, h, w]
    return list(out)


@pytest.mark.parametrize("name", [f"boxannotatorohem_{i}" for i in range(3)])
def test_golden(name: str) -> None:
    assert run_fork_golden(name) == ["torch"]


def test_loop() -> None:
    generator = np.random.default_rng(4)
    rois = generator.uniform(0, 90, (6, 5, 2, 3))
    rois[:, 0] = generator.integers(0, 4, (6, 2, 3))
    losses, labels = generator.uniform(0, 5, (6, 1, 2, 3)), generator.integers(0, 9, (6, 1, 2, 3))
    bottoms = [rois, losses, labels, generator.standard_normal((6, 8, 2, 3))]
    text = layer("roi_per_img: 3 ignore_label: -7")
    check_layer(text, bottoms, expect=hardest, lowers=False, gradient=False)


def run(images: list[float], losses: list[float]) -> tuple[Net, list[float]]:
    count = len(images)
    net = build(layer("roi_per_img: 2"), (count, 5), (count,), (count,), (count, 4), engine="torch")
    net.blobs["b0"].data[:, 0] = images
    net.blobs["b1"].data[...] = losses
    net.blobs["b2"].data[...] = np.arange(1, count + 1)
    net.blobs["b3"].data[...] = 1
    net.forward()
    return net, net.blobs["labels"].data.ravel().tolist()


def test_first_of_equal_losses_and_last_of_those_that_are_no_numbers() -> None:
    assert run([0, 0, 0, 0], [1, 1, 1, 1])[1] == [1, 2, -1, -1]
    assert run([0, 0, 0, 1e9], [float("nan"), 0, -9, 1])[1] == [-1, 2, 3, 4]


def test_nothing_flows_back() -> None:
    net, _ = run([0, 1], [1, 2])
    net.blobs["labels"].diff[...] = 1
    net.backward()
    assert not any(net.blobs[f"b{i}"].diff.any() for i in range(4))


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="Check failed: roi_per_img_ > 0"):
        build(layer(""), (6, 5), (6,), (6,), (6, 8))
    with pytest.raises(ShapeError, match=r"Expected regions \(R, 5, H, W\), losses and labels"):
        build(layer("roi_per_img: 2"), (6, 5), (6, 2), (6,), (6, 8))
    for image in (-1.0, float("nan")):
        with pytest.raises(InputError, match="number of images must be greater than 0"):
            run([0, image], [1, 2])
