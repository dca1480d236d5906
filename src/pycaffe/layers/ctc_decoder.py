"""CTCDecoder: labels of scores over time, by the best path or by the most probable labels."""

from __future__ import annotations

import numpy as np

from pycaffe.blob import Blob, FloatArray, Shape
from pycaffe.layers._ctc_decoding import best_path, most_probable
from pycaffe.layers._registry import register_layer
from pycaffe.layers.ctc_greedy_decoder import CTCGreedyDecoderLayer

__all__ = ["CTCDecoderLayer"]

BEST_PATH, PREFIX_SEARCH = 0, 1


@register_layer("CTCDecoder", "CtcDecoder")
class CTCDecoderLayer(CTCGreedyDecoderLayer):
    """As CTCGreedyDecoder, with probabilities for scores, labels always as (N, T, 1, 1), and a second way to decode.

    The second of two tops with indicators alone, and of three, is the probability of the best path (the product over
    its steps), or of the labels (the product over the sections).

    ctc_decoder_param: blank_index and ctc_merge_repeated, as for CTCGreedyDecoder; decoding: 0, the best path; 1, the
    most probable labels, all paths to them counted, of each section between steps whose blank is more probable than
    blank_threshold (1: one section). The fork tries every path of a section; this one finds the same labels by a
    search of prefixes. (ctc_decoder_layer.cpp of a fork of ChWick/caffe.)

    Raises:
        LayerError: another decoding.  InputError: the search does not end (a section is too long and too unsure).
    """

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.ctc_decoder_param
        if param.decoding not in (BEST_PATH, PREFIX_SEARCH):
            raise self.error(f"decode method must be 0 or 1. Got decoding {param.decoding!r}.")

    def _tops(self, bottoms: int, steps: int, batch: int) -> list[Shape]:
        tops = super()._tops(bottoms, steps, batch)
        return [(batch, steps, 1, 1), *tops[1:]] if self.indicated else tops

    def decode(self, scores: FloatArray) -> tuple[list[int], float]:
        param = self.layer_param.ctc_decoder_param
        if param.decoding == BEST_PATH:
            labels, best = best_path(scores, self.blank, param.ctc_merge_repeated)
            return labels, float(best.astype(np.float64).prod())
        inside = scores[:, self.blank] <= param.blank_threshold
        sections = np.split(scores, np.flatnonzero(inside[1:] != inside[:-1]) + 1)
        found, probability = list[int](), 1.0
        for section in sections:
            if section[0, self.blank] <= param.blank_threshold:
                labels, share = most_probable(section, self.blank, param.ctc_merge_repeated)
                found, probability = found + labels, probability * share
        return found, probability

    def put_labels(self, rows: FloatArray, top: Blob) -> None:
        top.raw_data()[...] = rows.reshape(top.shape)
