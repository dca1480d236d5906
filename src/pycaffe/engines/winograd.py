"""Computes large 3×3 convolutions with a quarter of the multiplications: Winograd's F(4×4, 3×3).

A tile of 4×4 outputs y depends on 6×6 inputs d, tiles overlapping by 2. With the matrices of Lavin and Gray (Fast
Algorithms for Convolutional Neural Networks, 2015):

    y = Aᵀ [ sum over input channels of (G w Gᵀ) ⊙ (Bᵀ d B) ] A

In ONNX: Bᵀ from both sides as depthwise convolutions of stride 4, one for each row and column of the 6×6; 36 matrix
products of all tiles, the channels summed; Aᵀ ⊗ Aᵀ as one product; DepthToSpace puts the tiles side by side. Every step
but the products moves memory, so it pays only where the channels are many and the tiles not too many: see `pays`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.engines.fold_batch_norm import Values, drop_unused

__all__ = ["pays", "use_winograd"]

TILE, WINDOW = 4, 6
INPUT = np.array(  # Bᵀ
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float32,
)
KERNEL = np.array(  # G
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
) / np.float32(24)
OUTPUT = np.array(  # Aᵀ
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32
)
ATTRIBUTES = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1, 1, 1, 1], "dilations": [1, 1], "group": 1}


def pays(channels: int, outputs: int, height: int, width: int) -> bool:
    """Whether a 3×3 convolution of this shape is faster by Winograd's algorithm.

    Measured on a Xeon with AVX-512, 2 threads, onnxruntime's Conv against this, in medians: 512 channels at 28×28 1.76
    times as fast at batch 1 and 1.56 at batch 8. Less than 1.2 times at 56×56×256 and 14×14×512; slower at 112×112×128
    (0.90), 224×224×64 (0.57), 28×28×256 (0.89) and 28×28×128 (0.83), where the tiles outweigh the products.
    VGG-16 gains 7 % at batch 1 and 12 % at batch 8.
    """
    return _many_channels(channels, outputs) and min(height, width) >= 24 and max(height, width) <= 40


def _many_channels(channels: int, outputs: int) -> bool:
    return channels >= 256 and channels % 16 == 0 and outputs >= 512  # 16: onnxruntime's blocks of channels


def use_winograd(model: Any, values: Values) -> None:
    """Rewrites an ONNX model in place, for onnxruntime on a CPU. Results differ by rounding: 1e-5 of the largest.

    Args:
        model: whose large initializers lie outside of it.
        values: makes those, by name; transformed weights come in, what nobody reads any more goes.
    """
    from onnx import NodeProto

    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer if tensor.name in values}
    extents = _extents(model, [node.input[0] for node in model.graph.node if _three_by_three(node, weights)])
    graph = _Rewriting(model, values)
    nodes: list[Any] = []
    for node in model.graph.node:
        _, height, width = extents.get(node.input[0], (0, 0, 0)) if node.input else (0, 0, 0)
        shape = weights[node.input[1]] if _three_by_three(node, weights) else None
        if shape is not None and pays(shape[1], shape[0], height, width):
            nodes += graph.convolution(node, shape, height, width)
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


class _Rewriting:
    """Makes the nodes and the constants that convolutions are replaced with."""

    def __init__(self, model: Any, values: Values) -> None:
        self._initializers = model.graph.initializer
        self._names = {tensor.name for tensor in self._initializers}
        self._values = values

    def convolution(self, node: Any, shape: tuple[int, ...], height: int, width: int) -> list[Any]:
        """The nodes in place of a convolution with weights of a shape."""
        self._nodes: list[Any] = []
        self._prefix = f"{node.output[0]}/winograd"
        outputs, channels = shape[:2]
        down, across = -(-height // TILE), -(-width // TILE)
        rows = self._transformed([node.input[0]], channels, [1, 0, TILE * down - height + 1, 0])
        tiles = self._transformed(rows, channels, [0, 1, 0, TILE * across - width + 1])
        x = self._add("Concat", tiles, axis=1)
        x = self._reshape(x, [0, WINDOW**2, channels, down * across])
        x = self._add("MatMul", [self._weight(node.input[1], outputs, channels), x])
        x = self._reshape(x, [0, WINDOW**2, outputs * down * across])
        x = self._add("MatMul", [self._constant("output", np.kron(OUTPUT, OUTPUT)), x])
        x = self._reshape(x, [0, TILE**2 * outputs, down, across])
        x = self._add("DepthToSpace", [x], blocksize=TILE, mode="DCR")
        if (TILE * down, TILE * across) != (height, width):
            starts, ends, axes = ([0, 0], [height, width], [2, 3])
            x = self._add("Slice", [x, *(self._integers(numbers) for numbers in (starts, ends, axes))])
        if len(node.input) > 2:
            x = self._add("Add", [x, self._reshape(node.input[2], [1, -1, 1, 1])])
        self._nodes[-1].output[0] = node.output[0]
        return self._nodes

    def _transformed(self, xs: list[str], channels: int, pads: list[int]) -> list[str]:
        """Bᵀ along the one axis that is padded: six values of each."""
        extents = [WINDOW, 1] if pads[0] else [1, WINDOW]
        attributes = {"group": channels, "strides": [TILE if n > 1 else 1 for n in extents], "pads": pads}
        kernels = []
        for i, row in enumerate(INPUT):
            kernel = np.broadcast_to(row.reshape(1, 1, *extents), (channels, 1, *extents))
            kernels.append(self._constant(f"input{i}-{channels}-{'rows' if pads[0] else 'columns'}", kernel))
        return [self._add("Conv", [x, kernel], **attributes) for x in xs for kernel in kernels]

    def _weight(self, name: str, outputs: int, channels: int) -> str:
        from onnx import TensorProto

        transformed = f"{self._prefix}/weight"
        self._values[transformed] = functools.partial(_transformed_weight, self._values[name])
        tensor = TensorProto(name=transformed, data_type=TensorProto.FLOAT, dims=(WINDOW**2, outputs, channels))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="memory")
        self._initializers.append(tensor)
        return transformed

    def _reshape(self, x: str, extents: list[int]) -> str:
        return self._add("Reshape", [x, self._integers(extents)])

    def _integers(self, numbers: list[int]) -> str:
        return self._constant("x".join(map(str, numbers)), np.array(numbers, np.int64))

    def _constant(self, name: str, array: Any) -> str:
        from onnx import numpy_helper

        name = f"winograd:{name}"  # no slash: not a name of Lowering
        if name not in self._names:
            self._names.add(name)
            self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        from onnx import helper

        name = f"{self._prefix}/{op_type}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name


def _transformed_weight(make: Callable[[], FloatArray]) -> FloatArray:
    """G w Gᵀ of weights (outputs, channels, 3, 3), as (36, outputs, channels)."""
    weight = make()
    product: FloatArray = np.kron(KERNEL, KERNEL) @ weight.reshape(-1, 9).T
    return product.reshape(WINDOW**2, *weight.shape[:2])
