"""MultiBoxLoss: what SSD learns from, locations and confidences of prior boxes."""

from __future__ import annotations

import logging
import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._boxes import Array
from pycaffe.layers._ground_truth import Objects, read_objects
from pycaffe.layers._loss import VALID, Normalization, check_first_dimension, legacy_extents
from pycaffe.layers._multi_box_matching import HARD_EXAMPLE, NO_MINING, Indices, Priors, find_matches, mine
from pycaffe.layers._multi_box_terms import Positives, location_terms, logistic_terms, softmax_terms
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["MultiBoxLossLayer"]

SOFTMAX = 0  # MultiBoxLossParameter.ConfLossType; LOGISTIC is 1
Negatives = tuple[Indices, Indices]  # their images and priors
logger = logging.getLogger(__name__)


@register_layer("MultiBoxLoss")
class MultiBoxLossLayer(LossLayer):
    """loss = (loc_weight * sum of location losses of matches + sum of confidence losses) / Z. Origin: SSD.

    bottom: locations (N, P * L * 4), L = 1 or, without `share_location`, C; confidences (N, P * C) before the softmax;
        priors (1, 2, P * 4), boxes and variances, by PriorBox; objects (1, 1, G, 8), rows as in _ground_truth.py.
    top: a scalar.

    Priors are matched with objects: first each object with the prior that overlaps it most (`match_type` BIPARTITE),
    then (PER_PREDICTION, default) each prior left with the object that it overlaps most, by `overlap_threshold` (0.5)
    at least. `use_prior_for_matching` (true), else the predicted boxes; `ignore_cross_boundary_bbox` (false) leaves out
    those that reach out of the image; `use_difficult_gt` (true).

    `mining_type` MAX_NEGATIVE (default) adds as negatives the `neg_pos_ratio` (3) times as many priors of greatest loss
    that no object overlaps by `neg_overlap` (0.5) or more; HARD_EXAMPLE keeps the `sample_size` (64) priors of greatest
    loss, matched or not; NONE takes all. Mining needs `share_location`, passes over images without objects, and with
    `nms_param` takes only the first of priors that overlap (of its `top_k`: none where that is not given).

    Location loss: `loc_loss_type` SMOOTH_L1 (default) or L2 of prediction - code, by `code_type` (CORNER, CENTER_SIZE,
    CORNER_SIZE; see _boxes.py); `bp_inside` (false): not of coordinates outside the image. Confidence loss:
    `conf_loss_type` SOFTMAX (default) or LOGISTIC over `num_classes` (required) with `background_label_id` (0);
    `map_object_to_agnostic` (false): all objects are of the one other class. Z by `loss_param` as in SoftmaxWithLoss:
    VALID (default) counts matches.

    backward: to locations and confidences; `propagate_down: false` for one leaves its term out of the loss. Differs
    from the derivative where the softmax is clipped (as in SoftmaxWithLoss), and with `encode_variance_in_target`,
    where the fork does not divide the gradient by the variance. Two habits of LOGISTIC are the fork's, too: targets
    begin as the background's number, and without mining image i's begin at element i * P (multibox_loss_layer.cpp).

    Raises:
        InputError: an object's label is outside 0 .. C - 1 or the background's; a prior or a variance is not positive.
    """

    exact_num_bottom_blobs = 4
    exact_num_top_blobs = 1
    origin = "SSD"
    not_lowered = "a loss that matches and mines on the host"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2

    def setup(self, bottom: list[Shape]) -> None:
        self.param = param = self.layer_param.multibox_loss_param
        self.normalization = Normalization(self.layer_param.loss_param, VALID).mode
        self.mines = param.mining_type != NO_MINING
        self.classes, self.background = int(param.num_classes), int(param.background_label_id)
        if not param.HasField("num_classes"):
            raise self.error("Must provide num_classes.")
        if self.classes < 1:
            raise self.error(f"num_classes should not be less than 1. Got {self.classes!r}.")
        if param.HasField("do_neg_mining"):
            logger.warning("do_neg_mining is deprecated, use mining_type instead.")
            if param.do_neg_mining != self.mines:
                raise self.error("Check failed: do_neg_mining_ == (mining_type_ != NONE). Remove do_neg_mining.")
        if self.mines and not param.share_location:
            raise self.error("Currently only support negative mining if share_location is true. Set mining_type: NONE.")
        if self.background >= self.classes and (self.mines or param.conf_loss_type == SOFTMAX):
            what = "background_label_id should be within [0, num_classes) for Softmax, and for mining."
            raise self.error(f"{what} Got {self.background!r}, num_classes {self.classes!r}.")
        if param.mining_type == HARD_EXAMPLE and param.sample_size <= 0:
            raise self.error(f"Check failed: sample_size > 0 ({param.sample_size} vs. 0).")
        if param.map_object_to_agnostic and self.classes != 2:
            raise self.error(f"Check failed: num_classes == 2 ({self.classes} vs. 2) with map_object_to_agnostic.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        check_first_dimension(bottom)
        extents = [legacy_extents(shape) for shape in bottom]
        self.priors = extents[2][2] // 4
        self.location_classes = 1 if self.param.share_location else self.classes
        sentence = (
            "Number of priors must match number of {} predictions. Got {!r} priors and shape {!r}; expected {!r}."
        )
        for index, what, each in ((0, "location", self.location_classes * 4), (1, "confidence", self.classes)):
            if extents[index][1] != self.priors * each:
                raise ShapeError(sentence.format(what, self.priors, bottom[index], (bottom[0][0], self.priors * each)))
        for index, expected in ((2, (2, self.priors * 4)), (3, None)):
            size = math.prod(bottom[index])
            if size % 8 or (expected and size != 8 * self.priors):
                raise ShapeError(f"MultiBoxLoss needs priors (1, 2, P * 4), objects (1, 1, G, 8). Got {bottom!r}.")
        return [()]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        count = bottom[0].shape[0]
        locations = bottom[0].reshape(count, self.priors, self.location_classes, 4)
        scores = bottom[1].reshape(count, self.priors, self.classes)
        table, rows = (tensor.detach().cpu().numpy() for tensor in (bottom[3], bottom[2]))
        priors, objects = Priors(*rows.reshape(2, self.priors, 4)), self._objects(table)
        with torch.no_grad():
            positives, negatives = self._sample(objects, priors, locations, scores)
        loss = scores.new_zeros(())
        if self._learns(0):
            terms = location_terms(positives, objects, priors, locations, self.param)
            loss = loss + self.param.loc_weight * terms.sum()
        if self._learns(1):
            labels = self._labels(positives, objects, scores)
            learnt = self._mined_terms if self.mines else self._all_terms
            loss = loss + learnt(positives, negatives, labels, scores).sum()
        divisors = (count * self.priors, len(positives.image), count, 1)  # by LossParameter.NormalizationMode
        return [loss / max(1, divisors[self.normalization])]

    def _learns(self, index: int) -> bool:
        """Whether the prototxt lets the gradient of that bottom flow."""
        flags = self.layer_param.propagate_down
        return bool(flags[index]) if flags else True

    def _objects(self, table: Array) -> Objects:
        objects = read_objects(table, self.background)
        if not self.param.use_difficult_gt:
            objects = objects.select(~objects.difficult)
        if self.param.map_object_to_agnostic:
            return objects._replace(label=np.full_like(objects.label, 1 - self.background))
        wrong = objects.label[(objects.label < 0) | (objects.label >= self.classes)]
        if len(wrong):
            check = f"label >= 0 ({wrong[0]} vs. 0)" if wrong[0] < 0 else f"label < {self.classes} ({wrong[0]})"
            raise InputError(f"Check failed: {check}. Labels must be in 0 .. num_classes - 1: {self.classes - 1}.")
        return objects

    def _sample(
        self, objects: Objects, priors: Priors, locations: Tensor, scores: Tensor
    ) -> tuple[Positives, Negatives]:
        """What is learnt from: matches, and the negatives' images and priors."""
        predicted = locations.cpu().numpy()
        found = list(find_matches(objects, priors, predicted, self.param))
        negatives = [np.empty((2, 0), np.intp)]
        if self.mines and found:
            losses = self._losses(Positives.of(found), objects, priors, locations, scores)
            for index, matches in enumerate(found):
                image = matches.image
                found[index], chosen = mine(matches, losses[image], predicted[image, :, 0], priors, self.param)
                negatives.append(np.stack([np.full_like(chosen, image), chosen]))
        images, chosen = np.concatenate(negatives, axis=1)
        return Positives.of(found), (images, chosen)

    def _losses(
        self, positives: Positives, objects: Objects, priors: Priors, locations: Tensor, scores: Tensor
    ) -> Array:
        """What each prior of each image contributes to the loss, (N, P): by it hard examples are found."""
        labels = scores.new_full(scores.shape[:2], self.background, dtype=torch.int64)
        labels[positives.image, positives.prior] = self._labels(positives, objects, scores)
        losses = self._terms(scores, labels, 0)
        if self.param.mining_type == HARD_EXAMPLE:
            terms = location_terms(positives, objects, priors, locations, self.param)
            losses[positives.image, positives.prior] += terms.sum(1)
        return np.asarray(losses.cpu().numpy())

    def _labels(self, positives: Positives, objects: Objects, scores: Tensor) -> Tensor:
        return torch.as_tensor(objects.label[positives.object], device=scores.device)

    def _mined_terms(self, positives: Positives, negatives: Negatives, labels: Tensor, scores: Tensor) -> Tensor:
        """The confidence losses of the matches and the negatives."""
        image, prior = (np.concatenate(pair) for pair in zip((positives.image, positives.prior), negatives))
        background = scores.new_full((len(negatives[0]),), self.background, dtype=torch.int64)
        return self._terms(scores[image, prior], torch.cat([labels, background]), self.background)

    def _terms(self, scores: Tensor, labels: Tensor, others: float) -> Tensor:
        """The confidence loss of each row (..., C); `others`: LOGISTIC's target for classes other than the label."""
        if self.param.conf_loss_type == SOFTMAX:
            return softmax_terms(scores, labels)
        return logistic_terms(scores, torch.full_like(scores, others).scatter_(-1, labels[..., None], 1))

    def _all_terms(self, positives: Positives, negatives: Negatives, labels: Tensor, scores: Tensor) -> Tensor:
        """The confidence losses of all priors."""
        if self.param.conf_loss_type == SOFTMAX:
            all_labels = scores.new_full(scores.shape[:2], self.background, dtype=torch.int64)
            all_labels[positives.image, positives.prior] = labels
            return softmax_terms(scores, all_labels)
        targets = torch.full_like(scores, self.background).reshape(-1)
        first = torch.as_tensor(positives.image * self.priors + positives.prior * self.classes, device=scores.device)
        targets[first + labels] = 1
        return logistic_terms(scores, targets.reshape(scores.shape))
