"""Box arithmetic of SSD beyond data/boxes.py: codes of boxes relative to priors, and matching (util/bbox_util.cpp).

Boxes are NumPy arrays (n, 4) of xmin, ymin, xmax, ymax, in units of the image's width and height.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pycaffe.data.boxes import Array, box_sizes, clip_boxes, jaccard_overlaps
from pycaffe.errors import InputError

__all__ = [
    "Array",
    "CENTER_SIZE",
    "CORNER",
    "CORNER_SIZE",
    "box_sizes",
    "clip_boxes",
    "cross_boundary",
    "decode_boxes",
    "encode_boxes",
    "jaccard_overlaps",
    "match_boxes",
]

CORNER, CENTER_SIZE, CORNER_SIZE = 1, 2, 3  # PriorBoxParameter.CodeType
SMALLEST_OVERLAP = 1e-6  # below it a prediction and an object do not meet, as in MatchBBox


def cross_boundary(boxes: Array) -> npt.NDArray[np.bool_]:
    """Which boxes reach out of the image."""
    outside: npt.NDArray[np.bool_] = np.any((boxes < 0) | (boxes > 1), axis=-1)
    return outside


def encode_boxes(boxes: Array, priors: Array, variances: Array | None, code_type: int) -> Array:
    """What a net should say at `priors` (n, 4) for `boxes` (n, 4).

    CORNER: differences of the corners. CENTER_SIZE: those of the centres by the prior's size, and logarithms of the
    ratios of the sizes. CORNER_SIZE: those of the corners by the prior's size. All divided by `variances` (n, 4),
    unless None.

    Raises:
        InputError: a variance, or a size that a code divides by or takes the logarithm of, is not positive.
    """
    if variances is not None:
        _check_positive("prior_variance[i]", variances)
    if code_type == CORNER:
        codes = boxes - priors
    else:
        size = priors[:, 2:] - priors[:, :2]
        _check_positive("prior_width and prior_height", size)
        if code_type == CORNER_SIZE:
            codes = (boxes - priors) / np.tile(size, 2)
        else:
            box_size = boxes[:, 2:] - boxes[:, :2]
            _check_positive("bbox_width and bbox_height", box_size)
            offset = ((boxes[:, :2] + boxes[:, 2:]) / 2 - (priors[:, :2] + priors[:, 2:]) / 2) / size
            codes = np.concatenate([offset, np.log(box_size / size)], axis=1)
    coded: Array = codes if variances is None else codes / variances
    return coded


def decode_boxes(codes: Array, priors: Array, variances: Array | None, code_type: int) -> Array:
    """The boxes (n, 4) that `codes` (n, 4) mean at `priors` (n, 4): undoes `encode_boxes`.

    Raises:
        InputError: the width or height of a prior is not positive, where the code is relative to them.
    """
    scaled = codes if variances is None else variances * codes
    if code_type == CORNER:
        return np.asarray(priors + scaled)
    size = priors[:, 2:] - priors[:, :2]
    _check_positive("prior_width and prior_height", size)
    if code_type == CORNER_SIZE:
        return np.asarray(priors + scaled * np.tile(size, 2))
    center = scaled[:, :2] * size + (priors[:, :2] + priors[:, 2:]) / 2
    with np.errstate(over="ignore"):  # an infinite box is what an absurd prediction means
        half = np.exp(scaled[:, 2:]) * size / 2
    return np.concatenate([center - half, center + half], axis=1)


def _check_positive(name: str, values: Array) -> None:
    wrong = ~(values > 0)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise InputError(
            f"Check failed: {name} > 0 ({float(values[wrong][0]):g} vs. 0). It is that of box {row!r}, {values[row]!r}."
        )


def match_boxes(overlaps: Array, threshold: float | None) -> tuple[npt.NDArray[np.intp], Array]:
    """Assigns objects to predictions by their `overlaps` (P, G).

    First, bipartite: of all pairs left the one that overlaps most is matched, until no object or no pair is left. Then,
    unless `threshold` is None, each prediction left gets the object that it overlaps most, if by at least `threshold`.
    Of equals the first prediction, then the first object wins.

    Returns:
        for each prediction the object's index (-1: none), and its overlap: with that object, or the largest one.
    """
    overlaps = np.where(overlaps > SMALLEST_OVERLAP, overlaps, -1)
    predictions, objects = overlaps.shape
    matches = np.full(predictions, -1, np.intp)
    if 0 in overlaps.shape:
        return matches, np.zeros(predictions, overlaps.dtype)
    best = np.maximum(overlaps.max(axis=1), 0)
    remaining = overlaps.copy()
    rows = remaining.argmax(axis=0)  # by object, its best prediction left
    for _ in range(objects):
        values = remaining[rows, np.arange(objects)]
        ties = np.flatnonzero(values == values.max())
        column = ties[rows[ties].argmin()]
        row = rows[column]
        if remaining[row, column] < 0:
            break
        matches[row], best[row] = column, overlaps[row, column]
        remaining[row], remaining[:, column] = -1, -1
        stale = rows == row
        rows[stale] = remaining[:, stale].argmax(axis=0)
    if threshold is not None:
        nearest = overlaps.argmax(axis=1)
        value = overlaps[np.arange(predictions), nearest]
        free = (matches < 0) & (value >= threshold) & (value > 0)
        matches[free] = nearest[free]
    return matches, best
