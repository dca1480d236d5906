"""Which priors MultiBoxLoss learns from: matching with the objects, then mining (FindMatches and MineHardExamples)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.layers._boxes import Array, box_sizes, cross_boundary, decode_boxes, jaccard_overlaps, match_boxes
from pycaffe.layers._ground_truth import Objects

__all__ = [
    "BIPARTITE",
    "HARD_EXAMPLE",
    "Indices",
    "Matches",
    "NO_MINING",
    "Priors",
    "find_matches",
    "mine",
]

BIPARTITE = 0  # MultiBoxLossParameter.MatchType; PER_PREDICTION is 1
NO_MINING, HARD_EXAMPLE = 0, 2  # MultiBoxLossParameter.MiningType; MAX_NEGATIVE is 1
UNMATCHED, IGNORED = -1, -2
SMALLEST_SIZE = 1e-5  # of a box that counts in the suppression before mining (ApplyNMS)

Indices = npt.NDArray[np.intp]


class Priors(NamedTuple):
    """Prior boxes (P, 4) and their variances (P, 4)."""

    boxes: Array
    variances: Array


class Matches(NamedTuple):
    """What the priors of an image are matched with.

    Attributes:
        image: its number in the batch.
        location: the class whose location predictions are meant, 0 where all classes share them.
        objects: by prior, the object's row, or UNMATCHED, or IGNORED.
        overlaps: by prior, the overlap with that object, or the largest one.
    """

    image: int
    location: int
    objects: Indices
    overlaps: Array


def find_matches(objects: Objects, priors: Priors, locations: Array, param: Any) -> Iterator[Matches]:
    """The matches of each image that has objects, in order; of each class where classes have their own locations.

    Args:
        objects: those of all images.
        priors: P of them.
        locations: the predictions (N, P, 1 or classes, 4).
        param: a MultiBoxLossParameter.
    """
    for image in range(len(locations)):
        rows = np.flatnonzero(objects.image == image)
        if len(rows) == 0:
            continue
        shared = _match(priors.boxes, objects, rows, param) if param.use_prior_for_matching else None
        for location in range(locations.shape[2]):
            if not param.share_location and location == param.background_label_id:
                continue
            if shared is None:
                own = rows if param.share_location else rows[objects.label[rows] == location]
                boxes = _predicted_boxes(locations[image, :, location], priors, param)
                found, overlaps = _match(boxes, objects, own, param)
            else:
                found, overlaps = shared
                if not param.share_location:
                    found = np.where((found >= 0) & (objects.label[found] == location), found, UNMATCHED)
            yield Matches(image, location, found, overlaps)


def _match(boxes: Array, objects: Objects, rows: Indices, param: Any) -> tuple[Indices, Array]:
    """`match_boxes` of predictions with the objects `rows`; by prior the row, and the overlap."""
    overlaps = jaccard_overlaps(boxes, objects.box[rows])
    ignored = param.ignore_cross_boundary_bbox & cross_boundary(boxes) & (len(rows) > 0)
    overlaps[ignored] = 0
    found, best = match_boxes(overlaps, None if param.match_type == BIPARTITE else param.overlap_threshold)
    found[found >= 0] = rows[found[found >= 0]]
    return np.where(ignored, IGNORED, found), best


def _predicted_boxes(codes: Array, priors: Priors, param: Any) -> Array:
    variances = None if param.encode_variance_in_target else priors.variances
    return decode_boxes(codes, priors.boxes, variances, param.code_type)


def mine(matches: Matches, losses: Array, codes: Array, priors: Priors, param: Any) -> tuple[Matches, Indices]:
    """Selects by their losses (P,) what is learnt from: MAX_NEGATIVE the worst priors that no object overlaps much, so
    many for each match; HARD_EXAMPLE the worst of all, which leaves only the matches among them.

    Args:
        matches: an image's.
        losses: what each prior contributes to the loss.
        codes: the image's location predictions (P, 4), for the suppression of similar boxes by `nms_param`.
        priors: P of them.
        param: a MultiBoxLossParameter.

    Returns:
        the matches that are left, and the negatives in ascending order.
    """
    found = matches.objects
    hard = param.mining_type == HARD_EXAMPLE
    eligible = np.flatnonzero(hard | ((found == UNMATCHED) & (matches.overlaps < param.neg_overlap)))
    wanted = param.sample_size if hard else int(np.float32((found >= 0).sum()) * np.float32(param.neg_pos_ratio))
    if param.HasField("nms_param") and param.nms_param.nms_threshold > 0:
        boxes = priors.boxes if param.use_prior_for_nms else _predicted_boxes(codes, priors, param)
        order = _suppress(boxes[eligible], losses[eligible], param.nms_param)
    else:
        order = np.argsort(-losses[eligible], kind="stable")
    selected = np.zeros(len(found), bool)
    selected[eligible[order[: max(wanted, 0)]]] = True
    negatives = np.flatnonzero(selected & (found == UNMATCHED))
    if hard:
        found = np.where((found >= 0) & ~selected, UNMATCHED, found)
    return matches._replace(objects=found), negatives


def _suppress(boxes: Array, losses: Array, param: Any) -> Indices:
    """The indices of the worst boxes that overlap no worse one by more than the threshold, worst first.

    `top_k` is 0 where it is not given, and 0 lets none through, as in the fork; a negative one lets all.
    """
    order = np.argsort(-losses, kind="stable")
    if param.top_k >= 0:
        order = order[: param.top_k]
    order = order[box_sizes(boxes[order]) >= SMALLEST_SIZE]
    kept: list[int] = []
    while len(order):
        kept.append(int(order[0]))
        overlaps = jaccard_overlaps(boxes[order[:1]], boxes[order[1:]])[0]
        order = order[1:][overlaps <= param.nms_threshold]
    return np.array(kept, np.intp)
