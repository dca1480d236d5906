"""ONNX nodes made fewer: Identities go, and what depends on parameters alone is computed once.

Other readers need it: OpenCV wants a BatchNormalization's statistics as constants, not as a sum to be divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.engines.runtime import load_onnxruntime

__all__ = ["fold_constants", "remove_identities"]

Array = npt.NDArray[Any]


def remove_identities(nodes: Sequence[Any], values: Sequence[str]) -> tuple[list[Any], list[str]]:
    """Nodes without Identity (Split and Dropout are lowered to it), and what `values` are called then."""
    alias: dict[str, str] = {}
    kept = []
    for node in nodes:
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.op_type == "Identity":
            alias[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    return kept, [alias.get(value, value) for value in values]


def fold_constants(
    nodes: Sequence[Any], arrays: dict[str, Array], values: Sequence[str]
) -> tuple[list[Any], dict[str, Array]]:
    """Computes the nodes that read nothing but `arrays`, and drops nodes and arrays that none of `values` needs."""
    nodes = _needed(nodes, values)
    constant = set(arrays)
    folded, kept = [], []
    for node in nodes:
        if all(name in constant for name in node.input if name):
            folded.append(node)
            constant.update(node.output)
        else:
            kept.append(node)
    read = {name for node in kept for name in node.input} | set(values)
    made = [name for node in folded for name in node.output if name in read]
    arrays = {**arrays, **(_compute(folded, arrays, made) if made else {})}
    return kept, {name: array for name, array in arrays.items() if name in read}


def _needed(nodes: Sequence[Any], values: Sequence[str]) -> list[Any]:
    needed = set(values)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _compute(nodes: Sequence[Any], arrays: dict[str, Array], wanted: list[str]) -> dict[str, Array]:
    """Values of nodes, by onnxruntime."""
    from onnx import TensorProto, helper

    from pycaffe.engines.segment import IR_VERSION
    from pycaffe.layers._lowering import OPSET

    read = {name for node in nodes for name in node.input}
    feeds = {name: np.ascontiguousarray(array) for name, array in arrays.items() if name in read}
    graph = helper.make_graph(
        nodes,
        "constants",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in wanted],
    )
    for output in graph.output:
        output.ClearField("type")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(wanted, session.run(wanted, feeds)))
