"""Takes a Concat apart where only 1×1 convolutions read it, directly or through a max pooling.

    conv(concat(a, b), [W_a W_b]) = conv(a, W_a) + conv(b, W_b)        pool(concat(a, b)) = concat(pool(a), pool(b))

The joined blob is never written, and onnxruntime adds the second product to the first in place. It pays where the
convolution has fewer channels out than in, as SqueezeNet's squeeze layers do: 8 % of its forward
(benchmarks/bench_inference.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pycaffe.engines.rewrites.value_shapes import value_shapes

__all__ = ["split_concatenations"]


def split_concatenations(model: Any) -> None:
    """Rewrites an ONNX model in place. Sums are grouped otherwise: float32 rounding apart, it computes the same."""
    outputs = {value.name for value in model.graph.output}
    _replace(model.graph, _pooled_before_joining(list(model.graph.node), outputs))
    nodes = list(model.graph.node)
    weights = {initializer.name: list(initializer.dims) for initializer in model.graph.initializer}
    concats = {
        node.output[0]: list(node.input)
        for node, readers in _concatenations(nodes, outputs)
        if all(_narrows(reader, node.output[0], weights) for reader in readers)
    }
    channels = _channels(model, {part for parts in concats.values() for part in parts}) if concats else {}
    concats = {name: parts for name, parts in concats.items() if all(part in channels for part in parts)}
    if not concats:
        return
    split = []
    for node in nodes:
        if node.op_type == "Conv" and node.input[0] in concats:
            parts = concats[node.input[0]]
            split += _sum_of_convolutions(node, parts, [channels[part] for part in parts])
        elif node.output[0] not in concats:
            split.append(node)
    _replace(model.graph, split)


def _concatenations(nodes: list[Any], outputs: set[str]) -> Iterator[tuple[Any, list[Any]]]:
    """Each Concat of channels that is no output, with the nodes that read it."""
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in nodes:
        joins = node.op_type == "Concat" and _attribute(node, "axis") == 1
        if joins and node.output[0] in readers and node.output[0] not in outputs:
            yield node, readers[node.output[0]]


def _pooled_before_joining(nodes: list[Any], outputs: set[str]) -> list[Any]:
    """The nodes with each Concat behind the only max pooling that reads it, which works channel by channel."""
    from onnx import NodeProto, helper

    instead: dict[str, list[Any]] = {}  # by the output of the node that goes
    for concat, readers in _concatenations(nodes, outputs):
        pool = readers[0]
        if len(readers) > 1 or pool.op_type != "MaxPool" or len(pool.output) > 1:
            continue
        pooled = []
        for i, part in enumerate(concat.input):
            name = f"{pool.output[0]}/part{i}"
            pooled.append(NodeProto.FromString(pool.SerializeToString()))
            pooled[-1].input[0], pooled[-1].output[0], pooled[-1].name = part, name, name
        joined = helper.make_node("Concat", [node.output[0] for node in pooled], pool.output, concat.name, axis=1)
        instead[concat.output[0]], instead[pool.output[0]] = [], [*pooled, joined]
    return [new for node in nodes for new in instead.get(node.output[0], [node])]


def _narrows(node: Any, name: str, weights: dict[str, list[int]]) -> bool:
    """Whether a node is a 1×1 convolution of `name`, without groups, with at most half as many channels out as in."""
    if node.op_type != "Conv" or node.input[0] != name or _attribute(node, "group") != 1:
        return False
    shape = weights.get(node.input[1], [])
    return len(shape) > 2 and 2 * shape[0] <= shape[1] and all(extent == 1 for extent in shape[2:])


def _attribute(node: Any, name: str) -> int | None:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), None)


def _channels(model: Any, names: set[str]) -> dict[str, int]:
    """The extent of axis 1 of values, where it can be inferred."""
    shapes = value_shapes(model)
    extents = {name: shapes[name][1] for name in names if len(shapes.get(name, ())) > 1}
    return {name: extent for name, extent in extents.items() if isinstance(extent, int)}


def _sum_of_convolutions(node: Any, parts: list[str], channels: list[int]) -> list[Any]:
    """The nodes in place of one convolution."""
    from onnx import helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    output, weight, bias = node.output[0], node.input[1], list(node.input[2:])
    weights = [f"{output}/weight{i}" for i in range(len(parts))]
    extents = helper.make_node("Constant", [], [f"{output}/channels"], value_ints=channels)
    nodes = [extents, helper.make_node("Split", [weight, *extents.output], weights, f"{output}/split", axis=1)]
    total = ""
    for i, part in enumerate(parts):
        product = f"{output}/part{i}"
        nodes.append(
            helper.make_node("Conv", [part, weights[i], *(bias if not total else [])], [product], product, **attributes)
        )
        if total:
            joined = output if i == len(parts) - 1 else f"{output}/sum{i}"
            nodes.append(helper.make_node("Add", [total, product], [joined], joined))
            product = joined
        total = product
    return nodes


def _replace(graph: Any, nodes: list[Any]) -> None:
    from onnx import NodeProto

    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]  # they may lie in the graph itself
    del graph.node[:]
    graph.node.extend(copies)
