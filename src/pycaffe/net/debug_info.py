"""What `debug_info: true` logs, in the original's words, which people's scripts parse (net.cpp, ForwardDebugInfo)."""

from __future__ import annotations

import logging
import math

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.graph import Graph

__all__ = ["log_all_parameters", "log_backward", "log_forward"]

logger = logging.getLogger("pycaffe.net")


def log_forward(graph: Graph, index: int) -> None:
    """Logs the mean magnitude of a layer's tops and parameters after its forward."""
    node = graph.nodes[index]
    for blob in node.top:
        mean = _mean_magnitude(graph.blobs[blob].raw_data())
        logger.info("    [Forward] Layer %s, top blob %s data: %g", node.name, graph.blob_names[blob], mean)
    for parameter in graph.parameters:
        if parameter.layer == index:
            mean = _mean_magnitude(parameter.blob.raw_data())
            logger.info("    [Forward] Layer %s, param blob %s data: %g", node.name, parameter.display_name, mean)


def log_backward(graph: Graph, index: int) -> None:
    """Logs the mean magnitude of the diffs that a layer's backward computed."""
    node = graph.nodes[index]
    for blob, need in zip(node.bottom, node.bottom_need_backward):
        if need:
            mean = _mean_magnitude(graph.blobs[blob].raw_diff())
            logger.info("    [Backward] Layer %s, bottom blob %s diff: %g", node.name, graph.blob_names[blob], mean)
    for i, (parameter, need) in enumerate(zip(node.layer.blobs, node.layer.param_propagate_down)):
        if need:
            mean = _mean_magnitude(parameter.raw_diff())
            logger.info("    [Backward] Layer %s, param blob %d diff: %g", node.name, i, mean)


def log_all_parameters(graph: Graph) -> None:
    """Logs the norms of all parameters and their diffs after a whole backward (Net::Backward)."""
    owned = [parameter.blob for parameter in graph.parameters if parameter.owner is None]
    data, diff = [blob.raw_data() for blob in owned], [blob.raw_diff() for blob in owned]
    logger.error(
        "    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)",
        *(sum(float(np.abs(array).sum(dtype=np.float64)) for array in arrays) for arrays in (data, diff)),
        *(math.sqrt(sum(float(np.vdot(array, array)) for array in arrays)) for arrays in (data, diff)),
    )


def _mean_magnitude(array: FloatArray) -> float:
    return float(np.abs(array).mean()) if array.size else 0.0
