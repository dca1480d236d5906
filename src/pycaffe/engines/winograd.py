"""Computes large 3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3).

A tile of 4×4 outputs y depends on 6×6 inputs d, tiles overlapping by 2. With the matrices of Lavin and Gray (Fast
Algorithms for Convolutional Neural Networks, 2015):

    y = Aᵀ [ sum over input channels of (G w Gᵀ) ⊙ (Bᵀ d B) ] A

In ONNX: Bᵀ from both sides as depthwise convolutions of stride 4, one for each row and column of the 6×6; 36 1×1
convolutions of all tiles, the channels summed; Aᵀ ⊗ Aᵀ as one product; DepthToSpace puts the tiles side by side. Every
step but the convolutions moves memory, so it pays only where the channels are many and the tiles not too many: see
`pays`. Where tiles do not, rows may: `pycaffe.engines.winograd_rows`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.engines.fold_batch_norm import Values, drop_unused
from pycaffe.engines.winograd_graph import KERNEL, OUTPUT, TILE, WINDOW, WinogradGraph
from pycaffe.engines.winograd_rows import in_rows, rows_pay

__all__ = ["pays", "use_winograd"]

ATTRIBUTES = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}


def pays(channels: int, outputs: int, height: int, width: int) -> bool:
    """Whether a 3×3 convolution of this shape is faster by Winograd's algorithm.

    Measured on a Xeon with AVX-512, 2 threads, onnxruntime's Conv against this, in medians: 512 channels at 28×28 1.76
    times as fast at batch 1 and 1.56 at batch 8. Less than 1.2 times at 56×56×256 and 14×14×512; slower at 112×112×128
    (0.90), 224×224×64 (0.57), 28×28×256 (0.89) and 28×28×128 (0.83), where the tiles outweigh the products.
    VGG-16 gained 7 % at batch 1 and 12 % at batch 8, with products by MatMul; 1×1 convolutions gave 1 % and 9 % more
    (medians of ratios of runs side by side).
    """
    return (
        _many_channels(channels, outputs) and outputs >= 512 and min(height, width) >= 24 and max(height, width) <= 40
    )


def _many_channels(channels: int, outputs: int) -> bool:
    """Whether there are extents that could pay: else none need be inferred."""
    return channels >= 256 and channels % 16 == 0 and outputs >= 256  # 16: onnxruntime's blocks of channels


def use_winograd(model: Any, values: Values) -> None:
    """Rewrites an ONNX model in place, for onnxruntime on a CPU. Results differ by rounding: 1e-5 of the largest.

    Args:
        model: whose large initializers lie outside of it.
        values: makes those, by name; transformed weights come in, what nobody reads any more goes.
    """
    from onnx import NodeProto

    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in values}
    extents = _extents(model, [node.input[0] for node in model.graph.node if _three_by_three(node, weights)])
    graph = WinogradGraph(model, values)
    nodes: list[Any] = []
    for node in model.graph.node:
        _, height, width = extents.get(node.input[0], (0, 0, 0)) if node.input else (0, 0, 0)
        shape = weights[node.input[1]] if _three_by_three(node, weights) else None
        if shape is not None and pays(shape[1], shape[0], height, width):
            nodes += _in_tiles(graph, node, shape, height, width)
        elif shape is not None and rows_pay(shape[1], shape[0], height, width):
            nodes += in_rows(graph, node, shape, height, width)
        else:
            nodes.append(NodeProto.FromString(node.SerializeToString()))
    if len(nodes) != len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        drop_unused(model, values)


def _three_by_three(node: Any, weights: dict[str, tuple[int, ...]]) -> bool:
    """Whether a node is a convolution of stride 1 that keeps height and width, with many channels."""
    from onnx import helper

    if node.op_type != "Conv" or weights.get(node.input[1], ())[2:] != (3, 3):
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    outputs, channels = weights[node.input[1]][:2]
    return {**ATTRIBUTES, "pads": None, **attributes} == ATTRIBUTES and _many_channels(channels, outputs)


def _extents(model: Any, names: list[str]) -> dict[str, tuple[int, ...]]:
    """Channels, height and width of values, as far as they can be inferred."""
    from onnx import shape_inference

    if not names:
        return {}
    graph = shape_inference.infer_shapes(model).graph
    dims = {value.name: value.type.tensor_type.shape.dim for value in [*graph.value_info, *graph.input]}
    return {name: tuple(dim.dim_value for dim in dims[name][1:]) for name in names if len(dims.get(name, ())) == 4}


def _in_tiles(graph: WinogradGraph, node: Any, shape: tuple[int, ...], height: int, width: int) -> list[Any]:
    """The nodes in place of a convolution with weights of a shape."""
    graph.begin(node)
    outputs, channels = shape[:2]
    down, across = -(-height // TILE), -(-width // TILE)
    rows = graph.transformed([node.input[0]], channels, 0, height)
    tiles = graph.transformed(rows, channels, 1, width)
    products = graph.products(tiles, node, shape, np.split(np.kron(KERNEL, KERNEL), WINDOW**2), ones=WINDOW + 1)
    x = graph.reshape(graph.add("Concat", products, axis=1), [0, WINDOW**2, outputs * down * across])
    x = graph.add("MatMul", [graph.constant("output", np.kron(OUTPUT, OUTPUT)), x])
    x = graph.reshape(x, [0, TILE**2 * outputs, down, across])
    x = graph.add("DepthToSpace", [x], blocksize=TILE, mode="DCR")
    return graph.end(x, (TILE * down, TILE * across), (height, width))
