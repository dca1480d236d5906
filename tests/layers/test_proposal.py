"""Proposal: a loop from the formula, hostile values, regions in a net, and a Python layer in its place."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest

import caffe
from pycaffe.errors import InputError, LayerError, ShapeError
from pycaffe.layers.proposal import make_anchors, suppress_overlaps
from pycaffe.net import TEST, Net
from pycaffe.proto.prototxt import parse_net
from tests.layers.case import build

ANCHORS = "ratio: 0.5 ratio: 1 ratio: 2 scale: 2 scale: 4"
BOTTOMS = (1, 12, 5, 7), (1, 24, 5, 7), (1, 3)
MODULE = "rpn_of_a_user"


def layer(param: str, tops: int = 2) -> str:
    names = "".join(f' top: "{name}"' for name in ("rois", "scores")[:tops])
    return (
        f'layer {{ name: "l" type: "Proposal" bottom: "b0" bottom: "b1" bottom: "b2"{names} '
        f"proposal_param {{ {param} }} }}"
    )


def example(seed: int = 1) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    deltas = 0.3 * generator.standard_normal(BOTTOMS[1])
    return [generator.uniform(0, 1, BOTTOMS[0]), deltas, np.array([[80, 112, 1.5]])]


def run(text: str, bottoms: list[np.ndarray]) -> Net:
    net = build(text, *(b.shape for b in bottoms))
    for i, array in enumerate(bottoms):
        net.blobs[f"b{i}"].data[...] = array
    net.forward()
    return net


def proposed(bottoms: list[np.ndarray], min_size: float, before: int, threshold: float, after: int) -> np.ndarray:
    """Rows of region and score, by plain loops."""
    scores, deltas, image = (b.astype(np.float32).astype(np.float64) for b in bottoms)
    height, width, scale = image[0]
    found = []
    for y, x in np.ndindex(5, 7):
        for k, (ratio, enlarged) in enumerate((r, s) for r in (0.5, 1, 2) for s in (2, 4)):
            w = math.floor(math.sqrt(256 / ratio) + 0.5)
            w, h = w * enlarged, math.floor(w * ratio + 0.5) * enlarged
            dx, dy, dw, dh = deltas[0, 4 * k : 4 * k + 4, y, x]
            # the anchor's corners are middle -+ (size - 1) / 2, and its centre lies half a pixel behind its middle
            cx, cy = 16 * x + 8 + dx * w, 16 * y + 8 + dy * h
            w, h = w * math.exp(dw), h * math.exp(dh)
            box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
            box = [min(max(v, 0), e - 1) for v, e in zip(box, (width, height, width, height))]
            large = min(box[2] - box[0] + 1, box[3] - box[1] + 1) >= min_size * scale
            found.append(([0, *box], scores[0, 6 + k, y, x] if large else 0.0))
    kept: list[tuple[list[float], float]] = []
    for roi, score in sorted(found, key=lambda pair: -pair[1])[:before]:
        if len(kept) < after and all(overlap(roi, other) <= threshold for other, _ in kept):
            kept.append((roi, score))
    return np.array([[*roi, score] for roi, score in kept])


def overlap(a: list[float], b: list[float]) -> float:
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + 1 for i in (1, 2))
    common = max(width, 0) * max(height, 0)
    areas = [(r[3] - r[1] + 1) * (r[4] - r[2] + 1) for r in (a, b)]
    return common / (sum(areas) - common)


@pytest.mark.parametrize(
    ("min_size", "before", "threshold", "after"), [(16, 6000, 0.7, 300), (30, 100, 0.5, 20), (1, 6000, 0.01, 9)]
)
def test_loop(min_size: int, before: int, threshold: float, after: int) -> None:
    text = layer(
        f"{ANCHORS} min_size: {min_size} pre_nms_topn: {before} nms_thresh: {threshold} post_nms_topn: {after}"
    )
    bottoms = example()
    net, want = run(text, bottoms), proposed(bottoms, min_size, before, threshold, after)
    assert net.blobs["rois"].shape == (len(want), 5)
    np.testing.assert_allclose(net.blobs["rois"].data, want[:, :5], atol=1e-4)
    np.testing.assert_allclose(net.blobs["scores"].data, want[:, 5], rtol=1e-6)


def test_anchors_of_faster_r_cnn() -> None:
    anchors = make_anchors(16, [0.5, 1, 2], [8, 16, 32])
    assert anchors.shape == (9, 4)
    assert anchors[0].tolist() == [-84, -40, 99, 55]
    assert anchors[4].tolist() == [-120, -120, 135, 135]
    assert anchors[8].tolist() == [-168, -344, 183, 359]


def test_suppression_keeps_what_overlaps_by_the_threshold() -> None:
    boxes = np.array([[0, 0, 9, 9], [0, 5, 9, 14], [0, 0, 9, 9], [20, 20, 20, 20]], np.float32)
    assert suppress_overlaps(boxes, 1 / 3, 9).tolist() == [0, 1, 3]
    assert suppress_overlaps(boxes, 0.3, 9).tolist() == [0, 3]
    assert suppress_overlaps(boxes, 1.0, 3).tolist() == [0, 1, 2]


def test_hostile_values() -> None:
    bottoms = example()
    bottoms[0][:], bottoms[1][:, ::3], bottoms[1][:, 1::3] = np.nan, np.nan, 1e30
    net = run(layer(f"{ANCHORS} post_nms_topn: 4000000000 pre_nms_topn: 4000000000 min_size: 4000000000"), bottoms)
    assert np.isfinite(net.blobs["rois"].data).all()
    assert not net.blobs["scores"].data.any()
    for value in (np.nan, np.inf):
        bottoms[2][0, 1] = value
        with pytest.raises(InputError, match="height, width and scale must be numbers"):
            run(layer(ANCHORS), bottoms)


DETECTOR = """
layer { name: "f" type: "Input" top: "f" input_param { shape { dim: 1 dim: 3 dim: 5 dim: 7 } } }
layer { name: "b0" type: "Input" top: "b0" input_param { shape { dim: 1 dim: 12 dim: 5 dim: 7 } } }
layer { name: "b1" type: "Input" top: "b1" input_param { shape { dim: 1 dim: 24 dim: 5 dim: 7 } } }
layer { name: "b2" type: "Input" top: "b2" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "relu" type: "ReLU" bottom: "f" top: "g" }
PROPOSAL
layer {
  name: "pool" type: "ROIPooling" bottom: "g" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_h: 2 pooled_w: 3 spatial_scale: 0.0625 }
}
layer {
  name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 4 weight_filler { type: "constant" value: 0.5 } }
}
"""


class UsersProposalLayer(caffe.Layer):
    """Written as rpn.proposal_layer of Faster R-CNN is: parameters by `param_str_`, settings by the phase's name."""

    def setup(self, bottom, top):
        self.count = {"TRAIN": 2, "TEST": int(self.param_str_)}[str(self.phase)]
        assert self.phase == caffe.TEST
        top[0].reshape(1, 5)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        boxes = bottom[1].data[0, :4].reshape(4, -1).T[: self.count] * 50 + 40
        blob = np.hstack([np.zeros((len(boxes), 1), np.float32), boxes]).astype(np.float32, copy=False)
        top[0].reshape(*blob.shape)
        top[0].data[...] = blob

    def backward(self, top, propagate_down, bottom):
        pass


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
@pytest.mark.parametrize("native", [True, False])
def test_regions_in_a_net(native: bool, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(MODULE)
    module.ProposalLayer = UsersProposalLayer
    monkeypatch.setitem(sys.modules, MODULE, module)
    python = (
        'layer { name: "l" type: "Python" bottom: "b0" bottom: "b1" bottom: "b2" top: "rois" '
        f'python_param {{ module: "{MODULE}" layer: "ProposalLayer" param_str: "6" }} }}'
    )
    proposal = layer(f"{ANCHORS} nms_thresh: 0.3", tops=1) if native else python
    net = Net(parse_net(DETECTOR.replace("PROPOSAL", proposal), "test.prototxt"), TEST, engine=engine, dialect="frcnn")
    counts = set()
    for seed in range(3):
        net.blobs["f"].data[...] = np.random.default_rng(seed).standard_normal((1, 3, 5, 7))
        for i, array in enumerate(example(seed)):
            net.blobs[f"b{i}"].data[...] = array
        out = net.forward()["ip"]
        counts.add(len(out))
        pool = net.blobs["pool"].data
        assert pool.shape == (len(out), 3, 2, 3)
        assert net.blobs["rois"].shape == (len(out), 5)
        np.testing.assert_allclose(out, np.repeat(0.5 * pool.sum((1, 2, 3))[:, None], 4, 1), rtol=1e-5)
    assert counts == {6} if not native else len(counts) > 1


def test_bad_input() -> None:
    with pytest.raises(LayerError, match="ratio is required"):
        build(layer("scale: 2"), *BOTTOMS)
    with pytest.raises(LayerError, match="post_nms_topn is required and must not be 0"):
        build(layer(f"{ANCHORS} post_nms_topn: 0"), *BOTTOMS)
    with pytest.raises(LayerError, match="ratio and scale must be positive"):
        build(layer("ratio: -1 scale: 2"), *BOTTOMS)
    with pytest.raises(ShapeError, match=r"6 anchors need scores and deltas of shapes \(1, 12, 5, 7\)"):
        build(layer(ANCHORS), (1, 14, 5, 7), *BOTTOMS[1:])
    with pytest.raises(ShapeError, match="Only single item batches are supported"):
        build(layer(ANCHORS), (2, 12, 5, 7), *BOTTOMS[1:])
    with pytest.raises(ShapeError, match="needs height, width and scale"):
        build(layer(ANCHORS), *BOTTOMS[:2], (1, 2))
