"""WarpCTCLoss: the loss of sequences without an alignment by Baidu's library."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._ctc import CtcLossLayer, Targets, check_scores, ctc_costs, sequence_lengths, sequences_by_step
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["WarpCTCLossLayer"]


@register_layer("WarpCTCLoss", "WarpCtcLoss")
class WarpCTCLossLayer(CtcLossLayer):
    """Mean over the batch of -log p(labels | scores).

    bottom: scores (T, N, C), before any softmax, and one of
        labels (N, L), in which blanks fill places that are not used (caffe_ocr);
        sequence indicators (T, N) and labels (T, N) that a negative one ends, as for CTCLoss (ChWick);
        lengths of the sequences (N), lengths of the labels (N), labels (L, N) (ChWick).
    top: a scalar.

    ctc_loss_param: blank_index. Unset or negative the blank is class 0; labels that come with indicators then are one
    less than their class, as in ChWick's fork. caffe_ocr does that for a blank_index of 0 that is written out, too.

    A sequence whose labels do not fit into its time costs 0 and teaches nothing, as in the library; costs that are not
    finite are left out of the mean. Gradient: see CtcLossLayer (warp_ctc_loss_layer.cpp).

    Raises:
        ShapeError: the bottoms are not of these shapes.
        InputError: a label is no class, or the blank; a length is out of range; more labels than steps.
    """

    origin = "ChWick's caffe, caffe_ocr"
    exact_num_bottom_blobs = None
    min_bottom_blobs = 2
    max_bottom_blobs = 4

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        steps, batch, _ = check_scores(bottom[0])
        expected: list[str]
        if len(bottom) == 2:
            expected, fits = ["(N, L)"], [bottom[1][:1] == (batch,)]
        elif len(bottom) == 3:
            expected, sizes = ["(T, N)"] * 2, (steps, batch)
            fits = [shape[:2] == sizes and math.prod(shape) == steps * batch for shape in bottom[1:]]
        else:
            expected = ["(N)", "(N)", "(L, N)"]
            fits = [math.prod(shape) == batch for shape in bottom[1:3]] + [bottom[3][1:2] == (batch,)]
        if not all(fits):
            raise ShapeError(
                f"Unsupported blobs shape. For scores (T, N, C) = {bottom[0]!r} expected {', '.join(expected)}, got "
                f"{', '.join(map(repr, bottom[1:]))}."
            )
        return [()]

    def targets(self, bottom: list[Tensor]) -> Targets:
        steps, batch = bottom[0].shape[:2]
        param = self.layer_param.ctc_loss_param
        unset = not param.HasField("blank_index") or param.blank_index < 0
        blank = 0 if unset else param.blank_index
        if len(bottom) == 2:
            rows = bottom[1].detach().reshape(batch, -1).to(torch.int64).tolist()
            labels = [[label for label in row if label != blank] for row in rows]
            return Targets(labels, [steps] * batch, blank)
        if len(bottom) == 3:
            lengths = sequence_lengths(bottom[1], steps, batch)
            found = sequences_by_step(bottom[2], batch)
            labels = [[int(label + 0.5) + unset for label in row] for row in found]
            return Targets(labels, _checked(lengths, found), blank)
        lengths, counts = (x.detach().reshape(-1).to(torch.int64).tolist() for x in bottom[1:3])
        columns = bottom[3].detach().reshape(-1, batch).T.to(torch.int64).tolist()
        for item, count in enumerate(counts):
            if not 0 <= count <= len(columns[item]):
                raise InputError(f"Sequence {item} must have 0 .. {len(columns[item])} labels. Got {count!r}.")
        return Targets([row[:count] for row, count in zip(columns, counts)], lengths, blank)

    def costs(self, bottom: list[Tensor]) -> Tensor:
        costs, possible = ctc_costs(bottom[0], self.targets(bottom))
        return torch.where(possible, costs, torch.zeros_like(costs))

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        costs = self.costs(bottom)
        return [costs[torch.isfinite(costs)].mean().to(bottom[0].dtype)]


def _checked(lengths: list[int], labels: list[list[float]]) -> list[int]:
    """The lengths, 0 for a sequence without labels; they must be long enough."""
    for item, (length, row) in enumerate(zip(lengths, labels)):
        if not row and length > 1:
            raise InputError(f"Check failed: seq_len[n] <= 1 ({length} vs. 1). Sequence {item} has no labels.")
        if len(row) > length:
            raise InputError(
                "The label length must be smaller or equals the sequence length! Sequence "
                f"{item} has {len(row)} labels in {length} steps."
            )
    return [length if row else 0 for length, row in zip(lengths, labels)]
