"""CtcLoss and CTCLoss: two forks' losses of sequences without an alignment, told apart by their capitals."""

from __future__ import annotations

import math

from pycaffe.blob import Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._ctc import CtcLossLayer, Targets, check_scores, ctc_costs, sequence_lengths, sequences_by_step
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["IndicatedCtcLossLayer", "LabelledCtcLossLayer"]


@register_layer("CtcLoss")
class LabelledCtcLossLayer(CtcLossLayer):
    """xmfbit's: mean over the batch of -log p(labels | scores).

    bottom: scores (T, N, C), before any softmax; labels (N, L), in which the blank label fills places not in use.
    top: a scalar.

    ctc_loss_param: alphabet_size, which must be C; time_step, how many of the T steps are used; blank_label (0).

    A sequence whose labels do not fit into its time costs 0 and teaches nothing, as in Baidu's library. Gradient: see
    CtcLossLayer (ctc_loss_layer.cpp of xmfbit/warpctc-caffe and caffe_ocr's Linux port).

    Raises:
        LayerError: a parameter is 0.  ShapeError: scores and labels differ in N, or from the parameters.
        InputError: a label is no class, or all are blank.
    """

    origin = "xmfbit's warpctc-caffe"
    exact_num_bottom_blobs = 2

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.ctc_loss_param
        if param.alphabet_size <= 0:
            raise self.error(f"The size of alphabeta should be greater than 0. Got {param.alphabet_size!r}.")
        if param.time_step <= 0:
            raise self.error(f"The time step should be greater than 0. Got {param.time_step!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param, (steps, batch, classes) = self.layer_param.ctc_loss_param, check_scores(bottom[0])
        if not bottom[1] or bottom[1][0] != batch:
            raise ShapeError(
                "The input blobs should have same dimensions. Expected scores (T, N, C) and labels (N, L), got "
                f"{bottom[0]!r} and {bottom[1]!r}."
            )
        if classes != param.alphabet_size or steps < param.time_step:
            raise ShapeError(
                f"Scores of shape {bottom[0]!r} do not fit alphabet_size {param.alphabet_size!r} and time_step "
                f"{param.time_step!r}: they must be (T, N, alphabet_size), with T at least time_step."
            )
        return [()]

    def targets(self, bottom: list[Tensor]) -> Targets:
        param, batch = self.layer_param.ctc_loss_param, bottom[0].shape[1]
        rows = bottom[1].detach().reshape(batch, -1).to(torch.int64).tolist()
        labels = [[label for label in row if label != param.blank_label] for row in rows]
        if not any(labels):
            raise InputError("total length should be greater than 0. All labels of the batch are blank.")
        return Targets(labels, [param.time_step] * batch, param.blank_label)

    def costs(self, bottom: list[Tensor]) -> Tensor:
        costs, possible = ctc_costs(bottom[0], self.targets(bottom))
        return torch.where(possible, costs, torch.zeros_like(costs))


@register_layer("CTCLoss")
class IndicatedCtcLossLayer(CtcLossLayer):
    """ChWick's: mean over the batch of -log p(labels | scores), of sequences of their own lengths.

    bottom: scores (T, N, C), before any softmax; sequence indicators (T, N), 0 where a sequence begins, which ends the
        one before; labels (T, N), ended by a negative one.
    top: a scalar.

    ctc_loss_param: blank_index (the last class); preprocess_collapse_repeated (false): labels that repeat count once;
    ctc_merge_repeated (true): repetitions in a path are merged; output_delay (0): steps before the first label.
    loss_calculation_t chooses between equal results there, and is ignored.

    Only the first sequence of each column counts. One without labels must have one step, and costs 0. One that no path
    reads as (labels that repeat without time for a blank between them) costs infinity, and its gradient is the softmax.
    Gradient: see CtcLossLayer (ctc_loss_layer.cpp of ChWick/caffe, branch ctc).

    Raises:
        ShapeError: the bottoms are not of these shapes, or the sequences are not longer than output_delay.
        InputError: more labels than steps; a label that is the blank or no class with more labels behind it.
    """

    origin = "ChWick's caffe"
    exact_num_bottom_blobs = 3

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        param, (steps, batch, classes) = self.layer_param.ctc_loss_param, check_scores(bottom[0])
        for name, shape in zip(("sequence indicators", "labels"), bottom[1:]):
            if shape[:2] != (steps, batch) or math.prod(shape) != steps * batch:
                raise ShapeError(
                    f"Check failed: data_blob->num() == seq_ind_blob->num(). The {name} must be {(steps, batch)!r}, as "
                    f"the scores. Got {shape!r}."
                )
        if not 0 <= param.output_delay < steps:
            raise ShapeError(f"output_delay must be in 0 .. {steps - 1}. Got {param.output_delay!r}.")
        self.blank = param.blank_index if param.HasField("blank_index") and param.blank_index >= 0 else classes - 1
        return [()]

    def targets(self, bottom: list[Tensor]) -> Targets:
        param, (steps, batch, classes) = self.layer_param.ctc_loss_param, check_scores(tuple(bottom[0].shape))
        lengths = sequence_lengths(bottom[1], steps, batch)
        found = []
        for item, labels in enumerate(sequences_by_step(bottom[2], batch)):
            if not labels:
                if lengths[item] > 1:
                    raise InputError(f"Check failed: seq_len[n] <= 1 ({lengths[item]} vs. 1). No labels in {item}.")
                lengths[item] = 0
            elif len(labels) > lengths[item] - param.output_delay:
                raise InputError(
                    "The label length must be smaller or equals the sequence length! Not enough time for target "
                    f"transition sequence: {len(labels)} labels in sequence {item} of {lengths[item]} steps, "
                    f"output_delay {param.output_delay}."
                )
            lengths[item] = max(0, lengths[item] - param.output_delay)
            found.append(self._classes(labels, classes, item))
        return Targets(found, lengths, self.blank)

    def _classes(self, labels: list[float], classes: int, item: int) -> list[int]:
        """Rounded labels up to the first blank or unknown one."""
        if self.layer_param.ctc_loss_param.preprocess_collapse_repeated:
            labels = [label for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]
        rounded = [int(label + 0.5) for label in labels]
        ends = [label >= classes or label == self.blank for label in rounded]
        end = ends.index(True) if True in ends else len(ends)
        if not all(ends[end:]):
            raise InputError(f"Saw a non-null label following a null label, sequence number {item}: {rounded!r}.")
        return rounded[:end]

    def costs(self, bottom: list[Tensor]) -> Tensor:
        param, targets = self.layer_param.ctc_loss_param, self.targets(bottom)
        scores = bottom[0][param.output_delay :]
        costs, possible = ctc_costs(scores, targets, merge=param.ctc_merge_repeated)
        spread = torch.logsumexp(scores.reshape(*scores.shape[:3]).to(torch.float64), 2)  # its gradient is the softmax
        counts = torch.arange(len(scores))[:, None] < torch.tensor(targets.lengths)
        counts = counts.to(scores.device)
        spread = torch.where(counts, spread, torch.zeros_like(spread)).sum(0)
        return torch.where(possible, costs, math.inf + (spread - spread.detach()))
