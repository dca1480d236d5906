"""Where NaN or infinity began, once the loss is none: told from what the blobs still hold."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.graph import Graph, Node

__all__ = ["where_it_began"]


def where_it_began(graph: Graph, iteration: int) -> str:
    """Names the iteration and the layer in which the first number that is none arose.

    Called after the forward of `iteration`. Where parameters hold such numbers, the update before it put them there:
    the blobs' diffs are still those of that backward, and its first layer with a bad diff is named.
    """
    for node in graph.nodes:
        bad = [i for i, blob in enumerate(node.layer.blobs) if not _finite(blob.raw_data())]
        if bad:
            origin = _backward_origin(graph)
            found = f"parameter {bad[0]} of layer {node.name!r} holds {_kind(node.layer.blobs[bad[0]].raw_data())}"
            if iteration == 0:
                return f"from the start: {found}"
            return f"in the update after iteration {iteration - 1}: {found}{origin}"
        if not all(_finite(blob.raw_data()) for blob in graph.tops(node)):
            values = next(blob.raw_data() for blob in graph.tops(node) if not _finite(blob.raw_data()))
            place = "data" if not node.bottom else "forward"
            return f"at iteration {iteration}, in the {place} of layer {node.name!r} ({node.type}): {_kind(values)}"
    return f"at iteration {iteration}, in the sum of the losses"


def _backward_origin(graph: Graph) -> str:
    for node in reversed(graph.nodes):
        diffs = _bottom_diffs(graph, node)
        if any(not _finite(diff) for diff in diffs):
            return f"; its backward gave the first in layer {node.name!r} ({node.type})"
    return "; the gradients were finite, so the step was too large: lower base_lr or set clip_gradients"


def _bottom_diffs(graph: Graph, node: Node) -> list[FloatArray]:
    pairs = zip(graph.bottoms(node), node.bottom_need_backward)
    return [blob.raw_diff() for blob, need in pairs if need]


def _finite(array: FloatArray) -> bool:
    """Without a temporary as large as the array: a sum is finite where all are, unless it overflows."""
    with np.errstate(all="ignore"):
        total = float(array.sum(dtype=np.float64))
    return bool(np.isfinite(total)) or bool(np.isfinite(array).all())


def _kind(array: Any) -> str:
    return "NaN" if bool(np.isnan(array).any()) else "infinity"
