"""What a layer's backward gives for chosen bottoms and top diffs: for the points where a derivative is not unique."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pycaffe.net import TEST, Net
from tests.layers.case import build

__all__ = ["bottom_diffs", "run_backward"]


def run_backward(
    layer_text: str, bottoms: Sequence[np.ndarray], top_diffs: Sequence[np.ndarray], phase: int = TEST
) -> Net:
    """The net of `build` after a forward and a backward on torch, with these diffs on the tops of layer "l"."""
    net = build(layer_text, *(bottom.shape for bottom in bottoms), phase=phase, engine="torch")
    for i, bottom in enumerate(bottoms):
        net.blobs[f"b{i}"].data[...] = bottom
    net.forward()
    for name, diff in zip(net.top_names["l"], top_diffs):
        net.blobs[name].diff[...] = diff
    net.backward()
    return net


def bottom_diffs(
    layer_text: str, bottoms: Sequence[np.ndarray], top_diffs: Sequence[np.ndarray], phase: int = TEST
) -> list[np.ndarray]:
    """The diffs of b0, b1, ... after `run_backward`."""
    net = run_backward(layer_text, bottoms, top_diffs, phase)
    return [net.blobs[f"b{i}"].diff.copy() for i in range(len(bottoms))]
