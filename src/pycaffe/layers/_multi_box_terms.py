"""The terms of MultiBoxLoss, one for each prior that it learns from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pycaffe.layers._boxes import decode_boxes, encode_boxes
from pycaffe.layers._ground_truth import Objects
from pycaffe.layers._multi_box_matching import Indices, Matches, Priors
from pycaffe.layers._torch import Tensor, torch

__all__ = ["Positives", "location_terms", "logistic_terms", "softmax_terms"]

L2 = 0  # MultiBoxLossParameter.LocLossType; SMOOTH_L1 is 1
LOG_SMALLEST = math.log(1.17549435e-38)  # FLT_MIN: the probability below which the original clips
LARGEST = 3e38


class Positives(NamedTuple):
    """Matched priors, one an element: the image, the class of the location prediction, the prior, the object's row."""

    image: Indices
    location: Indices
    prior: Indices
    object: Indices

    @classmethod
    def of(cls, found: Sequence[Matches]) -> Positives:
        """Those of all images, by image, class and prior."""
        rows = [np.empty((4, 0), np.intp)]
        for matches in found:
            priors = np.flatnonzero(matches.objects >= 0)
            same = np.ones_like(priors)
            rows.append(np.stack([matches.image * same, matches.location * same, priors, matches.objects[priors]]))
        return cls(*np.concatenate(rows, axis=1))


def location_terms(positives: Positives, objects: Objects, priors: Priors, locations: Tensor, param: Any) -> Tensor:
    """SMOOTH_L1 or L2 of prediction - code of the object, (M, 4), for the predictions `locations` (N, P, L, 4).

    With `encode_variance_in_target` both are divided by the variance here; the gradient is not, as in the fork.
    """
    boxes, variances = priors.boxes[positives.prior], priors.variances[positives.prior]
    predicted = locations[positives.image, positives.prior, positives.location]
    code = encode_boxes(objects.box[positives.object], boxes, variances, param.code_type)
    target = torch.as_tensor(code, dtype=predicted.dtype, device=predicted.device)
    if param.bp_inside:
        if not param.use_prior_for_matching:
            codes = predicted.detach().cpu().numpy()
            boxes = decode_boxes(codes, boxes, None if param.encode_variance_in_target else variances, param.code_type)
        outside = torch.as_tensor((boxes < 0) | (boxes > 1), device=predicted.device)
    if param.encode_variance_in_target:
        divisor = torch.as_tensor(variances, dtype=predicted.dtype, device=predicted.device)
        predicted = (predicted / divisor).detach() + (predicted - predicted.detach())
    if param.bp_inside:
        predicted = torch.where(outside, target, predicted)
    if param.loc_loss_type == L2:
        return (predicted - target).square() / 2
    return torch.nn.functional.smooth_l1_loss(predicted, target, reduction="none")


def softmax_terms(scores: Tensor, labels: Tensor) -> Tensor:
    """-log(max(p[label], FLT_MIN)) by row of `scores` (..., C); the gradient is that of -log(p[label])."""
    log_prob = torch.log_softmax(scores, -1).gather(-1, labels[..., None])[..., 0].clamp(min=-LARGEST)
    return -torch.where(log_prob < LOG_SMALLEST, LOG_SMALLEST + (log_prob - log_prob.detach()), log_prob)


def logistic_terms(scores: Tensor, targets: Tensor) -> Tensor:
    """The sum over classes of the cross entropy of sigmoid(score) with its target, by row of `scores` (..., C)."""
    terms = torch.nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="none")
    return terms.sum(-1)
