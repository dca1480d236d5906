"""LabelsequenceAccuracy: the share of sequences that are read without an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pycaffe.blob import Blob, Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import HostLayer
from pycaffe.layers._ctc_decoding import best_path
from pycaffe.layers._registry import register_layer

__all__ = ["LabelsequenceAccuracyLayer"]


@register_layer("LabelsequenceAccuracy")
class LabelsequenceAccuracyLayer(HostLayer):
    """How many sequences' best paths read exactly as their labels, over N; the companion of CtcLoss in TEST nets.

    bottom: scores (N, T, C): the batch comes first here; labels (N, L), whose blanks do not count.  top: a scalar.
    labelsequence_accuracy_param: blank_label (0). As in labelsequence_accuracy_layer.cpp of xmfbit/warpctc-caffe.

    Raises:
        ShapeError: the bottoms are not of these shapes.
    """

    origin = "xmfbit's warpctc-caffe"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        if len(bottom[0]) != 3 or 0 in bottom[0] or bottom[1][:1] != bottom[0][:1]:
            raise ShapeError(
                "The batch size shoule be equal. Expected scores (N, T, C) and labels (N, L), got "
                f"{bottom[0]!r} and {bottom[1]!r}."
            )
        return [()]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        blank = self.layer_param.labelsequence_accuracy_param.blank_label
        scores = bottom[0].raw_data()
        rows = bottom[1].raw_data().reshape(len(scores), -1)
        exact = [best_path(s, blank)[0] == row[row != blank].astype(int).tolist() for s, row in zip(scores, rows)]
        top[0].raw_data()[...] = np.mean(exact)
