"""Connectionist temporal classification: how likely a net's scores over time make a sequence of labels.

A path names a class for each step. It reads as the labels that are left once repetitions are merged and blanks are
taken out; the likelihood of labels is the sum over all paths that read as them (Graves 2012, chapter 7). CtcLoss,
CTCLoss and WarpCTCLoss differ in how they are told labels and lengths, in the blank class, and where no path fits.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from pycaffe.blob import Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._base import LossLayer
from pycaffe.layers._loss import refuse_label_gradient
from pycaffe.layers._torch import Tensor, torch

__all__ = ["CtcLossLayer", "Targets", "check_scores", "ctc_costs", "sequence_lengths", "sequences_by_step"]

IMPOSSIBLE = -1e30  # the log of a probability of 0: finite, so that no gradient becomes NaN


class Targets(NamedTuple):
    """What the N sequences of a batch should read as.

    Attributes:
        labels: the classes of each, without blanks.
        lengths: how many steps of the scores belong to it; 0: it does not count.
        blank: the class that stands for no label.
    """

    labels: list[list[int]]
    lengths: list[int]
    blank: int


class CtcLossLayer(LossLayer):
    """The losses' common part: the costs of a batch and their gradient.

    The gradient is that of the sum over the batch although the loss is a mean, as in all these forks; a `loss_weight`
    counts in it, which of the forks only xmfbit's heeds.
    """

    checked_by = "NumPy loop"
    not_lowered = "a recursion over labels whose number depends on the data"
    exact_num_top_blobs: ClassVar[int | None] = 1

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0

    def targets(self, bottom: list[Tensor]) -> Targets:
        """The labels of the batch.

        Raises:
            InputError: labels or lengths do not fit the scores.
        """
        raise NotImplementedError(self.type)

    def costs(self, bottom: list[Tensor]) -> Tensor:
        """The cost of each sequence, (N)."""
        raise NotImplementedError(self.type)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [self.costs(bottom).mean().to(bottom[0].dtype)]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        refuse_label_gradient(self, [propagate_down[0], any(propagate_down[1:])])
        if not propagate_down[0]:
            return [None] * len(bottom), []
        with torch.enable_grad():
            scores = bottom[0].detach().requires_grad_()
            total = self.costs([scores, *bottom[1:]]).sum()
            (gradient,) = torch.autograd.grad(total, scores)
        return [gradient * top_diff[0], *[None] * (len(bottom) - 1)], []


def check_scores(shape: Shape) -> tuple[int, int, int]:
    """T, N and C of scores (T, N, C) or (T, N, C, 1); ShapeError for others, and where one is 0."""
    if len(shape) not in (3, 4) or shape[3:] not in ((), (1,)) or 0 in shape:
        raise ShapeError(f"Check failed: probs->width() == 1. Scores must be (time, batch, classes). Got {shape!r}.")
    return shape[0], shape[1], shape[2]


def sequence_lengths(indicators: Tensor, steps: int, batch: int) -> list[int]:
    """How long each sequence is, by indicators (T, N): 0 where one begins; the next 0 after step 0 ends it."""
    begins = (indicators.detach().reshape(steps, batch)[1:] + 0.5).to(torch.int64) == 0
    first = torch.cat([begins, begins.new_ones(1, batch)])  # the end of all
    return [1 + int(step) for step in first.to(torch.int64).argmax(0)]


def sequences_by_step(labels: Tensor, batch: int) -> list[list[float]]:
    """The labels (L, N) of each sequence up to its first negative one."""
    found = []
    for column in labels.detach().reshape(-1, batch).T.tolist():
        end = next((i for i, label in enumerate(column) if label < 0), len(column))
        found.append(column[:end])
    return found


def ctc_costs(scores: Tensor, targets: Targets, merge: bool = True) -> tuple[Tensor, Tensor]:
    """-log of the likelihood of each sequence's labels, (N), and which of them any path can read as.

    A sequence of length 0 costs 0. What no path of its length reads as costs about 1e30. The scores are normalised by a
    softmax over the classes. Computed in float64.

    Args:
        scores: (T, N, C).
        targets: what they should read as.
        merge: whether repetitions are merged, as usual; without it only blanks may repeat.

    Raises:
        InputError: a label is the blank or no class; a length is not in 0 .. T.
    """
    steps, batch, classes = scores.shape[:3]
    _check_targets(targets, steps, classes)
    logs = torch.log_softmax(scores.reshape(steps, batch, classes).to(torch.float64), 2)
    states = _states(targets, scores)
    counts = torch.tensor([2 * len(labels) + 1 for labels in targets.labels], device=scores.device)
    lengths = torch.tensor(targets.lengths, device=scores.device)[:, None]
    emitted = logs.gather(2, states.expand(steps, *states.shape))
    never = torch.full_like(emitted[0], IMPOSSIBLE)
    place = torch.arange(states.shape[1], device=scores.device)
    blanks = states == targets.blank
    two_before = _shifted(states, 2, targets.blank)
    skips = ~blanks & (states != two_before) if merge else ~blanks & (place >= 2)
    reached = torch.where((place < 2) & (place < counts[:, None]), emitted[0], never)
    for step in range(1, max(targets.lengths, default=0)):
        stays = reached if merge else torch.where(blanks, reached, never)
        jumps = torch.where(skips, _shifted(reached, 2, IMPOSSIBLE), never)
        sources = torch.stack([stays, _shifted(reached, 1, IMPOSSIBLE), jumps])
        reached = torch.where(step < lengths, torch.logsumexp(sources, 0) + emitted[step], reached)
    last = (counts - 1)[:, None]
    ends = torch.cat([reached.gather(1, last), _shifted(reached, 1, IMPOSSIBLE).gather(1, last)], 1)
    costs = torch.where(lengths[:, 0] > 0, -torch.logsumexp(ends, 1), torch.zeros_like(ends[:, 0]))
    return costs, torch.tensor(_possible(targets, merge), device=scores.device)


def _check_targets(targets: Targets, steps: int, classes: int) -> None:
    if not 0 <= targets.blank < classes:
        raise InputError(f"The blank label must be a class, 0 .. {classes - 1}. Got {targets.blank!r}.")
    for item, (labels, length) in enumerate(zip(targets.labels, targets.lengths)):
        if not 0 <= length <= steps:
            raise InputError(f"Sequence {item} must have 0 .. {steps} steps. Got {length!r}.")
        for label in labels:
            if not 0 <= label < classes or label == targets.blank:
                raise InputError(
                    f"Label {label!r} of sequence {item} is out of range: labels must be in 0 .. {classes - 1}, and "
                    f"not the blank label {targets.blank!r}."
                )


def _states(targets: Targets, scores: Tensor) -> Tensor:
    """The classes that a path goes through: labels with a blank before, between and behind, (N, 2 L + 1)."""
    longest = max(map(len, targets.labels), default=0)
    states = torch.full((len(targets.labels), 2 * longest + 1), targets.blank, device=scores.device)
    for row, labels in zip(states, targets.labels):
        row[1 : 2 * len(labels) : 2] = torch.tensor(labels, device=scores.device)
    return states


def _shifted(values: Tensor, by: int, fill: float) -> Tensor:
    """The rows of a matrix, moved to the right."""
    return torch.nn.functional.pad(values, (by, 0), value=fill)[:, : values.shape[1]]


def _possible(targets: Targets, merge: bool) -> list[bool]:
    """Whether there is time for all labels, and for a blank between two that are the same."""
    return [length == 0 or _needed(labels, merge) <= length for labels, length in zip(targets.labels, targets.lengths)]


def _needed(labels: Sequence[int], merge: bool) -> int:
    return len(labels) + (sum(a == b for a, b in itertools.pairwise(labels)) if merge else 0)
