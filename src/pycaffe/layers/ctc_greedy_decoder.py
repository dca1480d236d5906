"""CTCGreedyDecoder: the labels of the best path through scores over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pycaffe.blob import Blob, FloatArray, Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._ctc import check_scores
from pycaffe.layers._ctc_decoding import as_blob, best_path, edit_distance, target_labels
from pycaffe.layers._registry import register_layer

__all__ = ["CTCGreedyDecoderLayer", "accuracy_of", "ends_of"]


@register_layer("CTCGreedyDecoder", "CtcGreedyDecoder")
class CTCGreedyDecoderLayer(HostLayer):
    """Takes the best class of each step, merges repetitions and removes blanks.

    bottom: scores (T, N, C), and nothing; or sequence indicators (T, N), as for CTCLoss; or these and true labels
        (T, N), each sequence ended by a negative one (ChWick); or true labels (N, L) alone (caffe_ocr). A second bottom
        of (T, N) is indicators.
    top: by the bottoms:
        scores: labels (N, T, 1, 1).
        scores, indicators: labels (T, N, 1, 1) and, if asked for, minus the sums of the best scores (N, 1, 1, 1).
        scores, indicators, labels: the same, with the accuracy (1, 1, 1, 1) as the last of two or three tops.
        scores, labels: (1, 2, 1, 1): the accuracy, and the share of the sequences that are read without an error.
        Labels are filled up with -1.

    The accuracy is 1 - the mean of edit distance / length of the longer of the two sequences.

    ctc_decoder_param: blank_index (the last class; without indicators class 0, as caffe_ocr has it; negative: the
    last), ctc_merge_repeated (true). No gradient (ctc_decoder_layer.cpp of ChWick/caffe and senlinuc/caffe_ocr).

    Raises:
        ShapeError: the bottoms are not of these shapes.  LayerError: another number of tops, or no class for blanks.
    """

    origin = "ChWick's caffe, caffe_ocr"
    checked_by = "NumPy loop"
    min_bottom_blobs = 1
    max_bottom_blobs = 3
    min_top_blobs = 1
    max_top_blobs = 3

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        steps, batch, classes = check_scores(bottom[0])
        self.indicated = len(bottom) == 3 or (len(bottom) == 2 and bottom[1][:2] == (steps, batch))
        param = self.layer_param.ctc_decoder_param
        self.blank = param.blank_index if param.HasField("blank_index") else -1 if self.indicated else 0
        self.blank = classes - 1 if self.blank < 0 else self.blank
        if self.blank >= classes:
            raise self.error(f"blank_index must be a class, 0 .. {classes - 1}. Got {self.blank!r}.")
        for shape in bottom[1:]:
            if shape[:2] != (steps, batch) and (self.indicated or shape[:1] != (batch,)):
                raise ShapeError(
                    f"For scores (T, N, C) = {bottom[0]!r} expected sequence indicators or labels of "
                    f"{(steps, batch)!r}, or labels ({batch}, L). Got {shape!r}."
                )
        return self._tops(len(bottom), steps, batch)

    def _tops(self, bottoms: int, steps: int, batch: int) -> list[Shape]:
        if not self.indicated:
            self._check_tops(1)
            return [(1, 2, 1, 1) if bottoms == 2 else (batch, steps, 1, 1)]
        self._check_tops(bottoms)
        tops: list[Shape] = [(steps, batch, 1, 1), (batch, 1, 1, 1), (1, 1, 1, 1)]
        return tops if self.num_top == 3 else [tops[0], tops[2 if bottoms == 3 else 1]][: self.num_top]

    def _check_tops(self, most: int) -> None:
        if self.num_top > most:
            raise self.error(f"Only {most} output blobs allowed with these bottoms. Got {self.num_top}.")

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        steps, batch, classes = check_scores(bottom[0].shape)
        scores = bottom[0].raw_data().reshape(steps, batch, classes)
        ends = ends_of(bottom[1].raw_data().reshape(steps, batch)) if self.indicated else [steps] * batch
        read = [self.decode(scores[: ends[n], n]) for n in range(batch)]
        found = [labels for labels, _ in read]
        if len(bottom) == 2 and not self.indicated:
            rows = bottom[1].raw_data().reshape(batch, -1)
            wanted = [[label for label in target_labels(row) if label != self.blank] for row in rows]
            share = sum(bool(a) and a == b for a, b in zip(found, wanted)) / batch  # two empty ones do not count
            top[0].raw_data()[...] = np.reshape([accuracy_of(found, wanted), share], top[0].shape)
            return
        self.put_labels(as_blob(found, steps), top[0])
        if self.num_top == 3 or (self.num_top == 2 and len(bottom) == 2):
            top[1].raw_data()[...] = np.reshape([score for _, score in read], top[1].shape)
        if len(bottom) == 3 and self.num_top > 1:
            columns = bottom[2].raw_data().reshape(steps, batch).T
            top[-1].raw_data()[...] = accuracy_of(found, [target_labels(column) for column in columns])

    def decode(self, scores: FloatArray) -> tuple[list[int], float]:
        """The labels of one sequence's scores (T, C), and their score."""
        labels, best = best_path(scores, self.blank, self.layer_param.ctc_decoder_param.ctc_merge_repeated)
        return labels, -float(best.sum())

    def put_labels(self, rows: FloatArray, top: Blob) -> None:
        """Writes labels (N, T) into their top."""
        top.raw_data()[...] = (rows.T if self.indicated else rows).reshape(top.shape)


def ends_of(indicators: FloatArray) -> list[int]:
    """How many steps each column's first sequence has, by indicators (T, N): up to the next 0."""
    starts = [np.flatnonzero(column[1:] == 0) for column in indicators.T]
    return [int(start[0]) + 1 if len(start) else len(indicators) for start in starts]


def accuracy_of(found: list[list[int]], wanted: list[list[int]]) -> float:
    """1 - the mean of edit distance / length; two empty sequences agree."""
    errors = [edit_distance(b, a) / max(len(a), len(b), 1) for a, b in zip(found, wanted)]
    return 1 - sum(errors) / len(errors)
