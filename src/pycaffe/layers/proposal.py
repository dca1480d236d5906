"""Proposal: regions of interest from a region proposal network's scores and box deltas."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Blob, Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._registry import register_layer

__all__ = ["ProposalLayer", "make_anchors", "suppress_overlaps"]

Array = npt.NDArray[np.float32]


@register_layer("Proposal")
class ProposalLayer(HostLayer):
    """Moves anchors by the predicted deltas, and keeps the best that do not overlap.

    bottom: scores (1, 2 * A, H, W), the objects' in the second half; deltas (1, 4 * A, H, W) of centre x, y and of the
        logarithms of width and height; the image (1, 3 or more): height, width, and how much it was enlarged, once or
        for height and width.
    top: regions (R, 5): 0, x1, y1, x2, y2, corners included, best first; optionally their scores (R). R is known in
        forward; after set-up it is the most that there can be.

    Parameters (proposal_param): feat_stride (16); base_size (16); ratio and scale, of which every pair is an anchor,
    required; min_size (16), times the enlargement: the score of a smaller box becomes 0; pre_nms_topn (6000) boxes of
    greatest score go into the suppression of overlaps above nms_thresh (0.7), and post_nms_topn (300) come out.

    Anchor (r, s) has width s * round(sqrt(base_size^2 / r)) and height s * round(round(...) * r), around the middle of
    the first base_size pixels. Boxes are cut at the image. Among equal scores the order is by row, column and anchor
    (proposal_layer.cpp of PVANET). A delta that is not a number makes an empty box; such a score counts as 0.

    No gradient flows. The Python layer of Faster R-CNN, `rpn.proposal_layer`, runs as it is, as a Python layer.

    Raises:
        LayerError: a parameter is missing or 0.
        ShapeError: the bottoms do not fit the anchors, or there are several items.
        InputError: the image's extents are not finite numbers.
    """

    exact_num_bottom_blobs = 3
    min_top_blobs = 1
    max_top_blobs = 2
    not_lowered = "how many regions there are depends on the data"
    origin = "PVANET"
    checked_by = "NumPy loop"

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.proposal_param
        for name in ("feat_stride", "base_size", "pre_nms_topn", "post_nms_topn", "ratio", "scale"):
            if not getattr(param, name):
                raise self.error(f"Proposal: {name} is required and must not be 0.")
        if not all(0 < value < np.inf for value in (*param.ratio, *param.scale)):
            raise self.error(
                f"Proposal: ratio and scale must be positive. Got {list(param.ratio)!r} and {list(param.scale)!r}."
            )
        self.anchors = make_anchors(param.base_size, param.ratio, param.scale)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        scores, deltas, image = bottom
        count = len(self.anchors)
        if len(scores) != 4 or scores[0] != 1:
            raise ShapeError(f"Only single item batches are supported. Got scores of shape {scores!r}.")
        expected = (1, 2 * count, *scores[2:]), (1, 4 * count, *scores[2:])
        if (scores, deltas) != expected:
            raise ShapeError(
                f"{count} anchors need scores and deltas of shapes {expected[0]!r} and {expected[1]!r}. "
                f"Got {scores!r} and {deltas!r}."
            )
        if int(np.prod(image)) < 3:
            raise ShapeError(f"The image needs height, width and scale: (1, 3). Got shape {image!r}.")
        param = self.layer_param.proposal_param
        most = min(param.post_nms_topn, param.pre_nms_topn, count * scores[2] * scores[3])
        return [(most, 5), (most,)][: self.num_top]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        param, (scores, deltas, image) = self.layer_param.proposal_param, (blob.data for blob in bottom)
        height, width, *scale = (float(value) for value in image.ravel()[:4])
        if not all(map(np.isfinite, (height, width, *scale))):
            raise InputError(
                f"The image's height, width and scale must be numbers. Got {image.ravel()[:4].tolist()!r}."
            )
        smallest = param.min_size * scale[-1], param.min_size * scale[0]  # width, height
        boxes = self._boxes(deltas[0], width, height)
        extents = boxes[:, 2:] - boxes[:, :2] + 1
        score = np.nan_to_num(scores[0, len(self.anchors) :].transpose(1, 2, 0).ravel(), nan=0.0)
        score = np.where((extents >= smallest).all(1), score, np.float32(0))
        order = np.argsort(-score, kind="stable")[: param.pre_nms_topn]
        kept = order[suppress_overlaps(boxes[order], param.nms_thresh, param.post_nms_topn)]
        top[0].reshape(len(kept), 5)
        top[0].data[:, 0], top[0].data[:, 1:] = 0, boxes[kept]
        if len(top) > 1:
            top[1].reshape(len(kept))
            top[1].data[...] = score[kept]

    def _boxes(self, deltas: Array, width: float, height: float) -> Array:
        """The moved anchors, cut at the image: (H * W * A, 4), by row, column and anchor."""
        _, rows, columns = deltas.shape
        stride = self.layer_param.proposal_param.feat_stride
        y, x = np.meshgrid(np.arange(rows) * stride, np.arange(columns) * stride, indexing="ij")
        anchors = np.stack([x, y, x, y], -1)[:, :, None] + self.anchors.astype(np.float32)
        moves = deltas.reshape(-1, 4, rows, columns).transpose(2, 3, 0, 1)
        size = anchors[..., 2:] - anchors[..., :2] + 1
        with np.errstate(over="ignore", invalid="ignore"):  # a large delta reaches past the image: it is cut there
            middle = moves[..., :2] * size + anchors[..., :2] + 0.5 * size
            size = np.exp(moves[..., 2:]) * size
            boxes = np.concatenate([middle - 0.5 * size, middle + 0.5 * size], -1).reshape(-1, 4)
        last = np.array([width - 1, height - 1] * 2)
        cut: Array = np.fmax(0, np.minimum(boxes, last)).astype(np.float32)  # fmax turns a NaN into 0
        return cut


def make_anchors(base_size: int, ratios: Sequence[float], scales: Sequence[float]) -> Array:
    """Corners of the anchors around the first base_size pixels, by ratio, then by scale: (A, 4)."""
    middle, anchors = 0.5 * (base_size - 1), []
    for ratio in ratios:
        width = np.floor(np.sqrt(base_size * base_size / ratio) + 0.5)
        height = np.floor(width * ratio + 0.5)
        for scale in scales:
            x, y = 0.5 * (width * scale - 1), 0.5 * (height * scale - 1)
            anchors.append((middle - x, middle - y, middle + x, middle + y))
    return np.asarray(anchors, np.float32)


def suppress_overlaps(boxes: Array, threshold: float, most: int) -> npt.NDArray[np.int64]:
    """Indices of the boxes, best first, that no better one kept overlaps by more than `threshold`; `most` at most."""
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1)
    left, kept = np.arange(len(boxes)), list[int]()
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        common = np.minimum(boxes[left, 2:], boxes[best, 2:]) - np.maximum(boxes[left, :2], boxes[best, :2]) + 1
        common = common.clip(min=0).prod(1)
        left = left[~(common / (areas[left] + areas[best] - common) > threshold)]
    return np.asarray(kept, np.int64)
