"""What two forms of Winograd's algorithm share: the matrices for 4 outputs of 3 taps, and a writer of nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.engines.fold_batch_norm import Values

__all__ = ["INPUT", "KERNEL", "OUTPUT", "TILE", "WINDOW", "WinogradGraph"]

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


class WinogradGraph:
    """Makes the nodes and the constants that convolutions are replaced with."""

    def __init__(self, model: Any, values: Values) -> None:
        self._initializers = model.graph.initializer
        self._names = {tensor.name for tensor in self._initializers}
        self._values = values

    def begin(self, node: Any) -> None:
        """Begins the nodes in place of a convolution."""
        self._nodes: list[Any] = []
        self._output = node.output[0]
        self._prefix = f"{self._output}/winograd"

    def end(self, x: str, extents: tuple[int, int], wanted: tuple[int, int]) -> list[Any]:
        """The nodes, with the last one's height and width cut to the wanted."""
        if extents != wanted:
            starts, ends, axes = ([0, 0], list(wanted), [2, 3])
            self.add("Slice", [x, *(self._integers(numbers) for numbers in (starts, ends, axes))])
        self._nodes[-1].output[0] = self._output
        return self._nodes

    def transformed(self, xs: list[str], channels: int, axis: int, extent: int) -> list[str]:
        """Bᵀ along one axis of the extent, padded by one before: six values of each."""
        before, after = [0, 0], [0, 0]
        before[axis], after[axis] = 1, TILE * -(-extent // TILE) - extent + 1
        window, stride = [1, 1], [1, 1]
        window[axis], stride[axis] = WINDOW, TILE
        kernels = []
        for i, row in enumerate(INPUT):
            kernel = np.broadcast_to(row.reshape(1, 1, *window), (channels, 1, *window))
            kernels.append(self.constant(f"input{i}-{channels}-{('rows', 'columns')[axis]}", kernel))
        attributes = {"group": channels, "strides": stride, "pads": before + after}
        return [self.add("Conv", [x, kernel], **attributes) for x in xs for kernel in kernels]

    def products(
        self, xs: list[str], node: Any, shape: tuple[int, ...], matrices: list[FloatArray], ones: int
    ) -> list[str]:
        """A convolution of each x with weights of its own: a matrix times the 9 numbers of each 3×3 kernel.

        The bias goes into the one that reaches all outputs with the factor 1.
        """
        weights = [self._weight(node.input[1], i, shape, matrix) for i, matrix in enumerate(matrices)]
        pads = [[0, len(matrix) // 2] * 2 for matrix in matrices]
        return [
            self.add("Conv", [x, weight, *(node.input[2:] if i == ones else [])], pads=pads[i])
            for i, (x, weight) in enumerate(zip(xs, weights))
        ]

    def reshape(self, x: str, extents: list[int]) -> str:
        """Reshape."""
        return self.add("Reshape", [x, self._integers(extents)])

    def constant(self, name: str, array: Any) -> str:
        """A small constant that all convolutions share."""
        from onnx import numpy_helper

        name = f"winograd:{name}"  # no slash: not a name of Lowering
        if name not in self._names:
            self._names.add(name)
            self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        """A node; returns its output."""
        from onnx import helper

        name = f"{self._prefix}/{op_type}{len(self._nodes)}"
        self._nodes.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def _integers(self, numbers: list[int]) -> str:
        return self.constant("x".join(map(str, numbers)), np.array(numbers, np.int64))

    def _weight(self, name: str, i: int, shape: tuple[int, ...], matrix: FloatArray) -> str:
        from onnx import TensorProto

        transformed = f"{self._prefix}/weight{i}"
        dims = (*shape[:2], 1, len(matrix))
        self._values[transformed] = functools.partial(_transformed_weight, self._values[name], matrix)
        tensor = TensorProto(name=transformed, data_type=TensorProto.FLOAT, dims=dims)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="memory")
        self._initializers.append(tensor)
        return transformed


def _transformed_weight(make: Callable[[], FloatArray], matrix: FloatArray) -> FloatArray:
    """A matrix times the kernels of weights (outputs, channels, 3, 3), as (outputs, channels, 1, its rows)."""
    weight = make()
    product: FloatArray = weight.reshape(-1, 9) @ matrix.T
    return product.reshape(*weight.shape[:2], 1, len(matrix))
