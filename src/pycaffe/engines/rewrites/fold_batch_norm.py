"""Folds what scales and shifts the channels of a convolution into its weights: BatchNorm, Scale, BN, Bias.

    s · (W * x + b) + t = (s W) * x + (s b + t)

onnxruntime would do the same, but with all copies in memory at once, one for each of the three steps: ResNet-50 took
1.7 times its weights and activations while it was loaded (benchmarks/bench_load.py). Here a convolution's new weights
are made when they are asked for, and the factors are computed in double precision.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray

__all__ = ["Values", "drop_unused", "fold_batch_norms"]

Values = dict[str, Callable[[], FloatArray]]
Float64Array = npt.NDArray[np.float64]

# What layers lower their constants with (layers/batch_norm.py, scale.py).
CONSTANT_OPS: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Div": np.divide,
    "Equal": np.equal,
    "Identity": np.asarray,
    "Mul": np.multiply,
    "Reciprocal": np.reciprocal,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Where": np.where,
}


def fold_batch_norms(model: Any, arrays: dict[str, FloatArray]) -> Values:
    """Rewrites an ONNX model in place.

    Args:
        model: whose initializers may lie outside of it.
        arrays: the values of those, by name.

    Returns:
        The values of the initializers outside of the rewritten model, by name, each made when it is called for.
    """
    values: Values = {name: functools.partial(np.asarray, array) for name, array in arrays.items()}
    graph = _Graph(model, arrays)
    folded = False
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in arrays]
    for convolution in convolutions:
        weight = arrays[convolution.input[1]]
        affine = _Affine(len(weight), weight.ndim)
        last = convolution
        while (reader := graph.only_reader(last)) is not None and affine.takes(reader, last.output[0], graph):
            last = reader
        if last is not convolution:
            values.update(_fold(model, convolution, last, affine, weight, graph))
            folded = True
    if folded:
        drop_unused(model, values)
    return values


class _Graph:
    """Who reads and makes the values of a model, and which of them are constant."""

    def __init__(self, model: Any, arrays: dict[str, FloatArray]) -> None:
        from onnx import numpy_helper

        self._readers: dict[str, list[Any]] = {}
        for node in model.graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        self._makers = {name: node for node in model.graph.node for name in node.output}
        self._outputs = {value.name for value in model.graph.output}
        self._constants: dict[str, Any] = dict(arrays)
        for tensor in model.graph.initializer:
            if tensor.name not in arrays:
                self._constants[tensor.name] = numpy_helper.to_array(tensor)

    def only_reader(self, node: Any) -> Any:
        """The one node that reads a node's output, if nobody else sees it."""
        (output,) = node.output
        readers = self._readers.get(output, [])
        return readers[0] if len(readers) == 1 and output not in self._outputs else None

    def constant(self, name: str) -> Any:
        """The value as an array, floating point ones in double precision; None where it depends on the inputs."""
        if name in self._constants:
            value = self._constants[name]
            return value.astype(np.float64) if value.dtype == np.float32 else value
        node = self._makers.get(name)
        if node is None or node.op_type not in (*CONSTANT_OPS, "Reshape"):
            return None
        operands = [self.constant(operand) for operand in node.input]
        if any(operand is None for operand in operands):
            return None
        if node.op_type == "Reshape":
            x, shape = operands
            return x.reshape([extent or x.shape[axis] for axis, extent in enumerate(shape)])  # 0: as it is
        with np.errstate(divide="ignore", invalid="ignore"):
            return CONSTANT_OPS[node.op_type](*operands)


class _Affine:
    """What becomes of a convolution's channels: `scale` times them plus `shift`, both of shape (channels,).

    Args:
        channels: how many there are, along axis 1.
        rank: the number of axes of the convolution's output.
    """

    def __init__(self, channels: int, rank: int) -> None:
        self.rank = rank
        self.scale: Float64Array = np.ones(channels)
        self.shift: Float64Array = np.zeros(channels)

    def takes(self, node: Any, x: str, graph: _Graph) -> bool:
        """Applies a node that reads the value `x`; False where it does not work channel by channel."""
        factors = self._batch_normalization(node, graph)
        if factors is None and node.op_type in ("Add", "Mul"):
            operand = self._by_channel(graph.constant(next((name for name in node.input if name != x), x)))
            if operand is not None:
                factors = (1.0, operand) if node.op_type == "Add" else (operand, 0.0)
        if factors is None:
            return False
        scale, shift = factors
        self.scale, self.shift = self.scale * scale, self.shift * scale + shift
        return True

    @staticmethod
    def _batch_normalization(node: Any, graph: _Graph) -> tuple[Any, Any] | None:
        if node.op_type != "BatchNormalization":
            return None
        constants = [graph.constant(name) for name in node.input[1:]]
        if any(constant is None for constant in constants):
            return None
        scale, bias, mean, variance = constants
        with np.errstate(divide="ignore", invalid="ignore"):
            epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
            factor = scale / np.sqrt(variance + epsilon)
        return factor, bias - factor * mean

    def _by_channel(self, operand: Any) -> Any:
        """A constant as one value for each channel, or one for all; None where it has other extents."""
        if operand is None or operand.ndim > self.rank:
            return None
        extents = (*[1] * (self.rank - operand.ndim), *operand.shape)
        return operand.reshape(-1) if extents[1] == operand.size and operand.size in (1, len(self.scale)) else None


def _fold(model: Any, convolution: Any, last: Any, affine: _Affine, weight: FloatArray, graph: _Graph) -> Values:
    """Makes a convolution give the value of `last`; returns its new parameters."""
    from onnx import TensorProto

    old_bias = graph.constant(convolution.input[2]) if len(convolution.input) > 2 else 0.0
    new_weight, new_bias = f"{last.output[0]}/weight", f"{last.output[0]}/bias"
    shift = (affine.scale * old_bias + affine.shift).astype(np.float32)
    scale = affine.scale.reshape(-1, *[1] * (weight.ndim - 1))
    for name, shape in ((new_weight, weight.shape), (new_bias, shift.shape)):
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="memory")
        model.graph.initializer.append(tensor)
    del convolution.input[1:]
    convolution.input.extend([new_weight, new_bias])
    convolution.output[0] = last.output[0]
    last.output[0] = f"{last.output[0]}/folded"
    return {new_weight: lambda: (weight * scale).astype(np.float32), new_bias: lambda: shift}


def drop_unused(model: Any, values: Values) -> None:
    """Removes nodes and initializers that lead to no output."""
    graph = model.graph
    needed = Counter(value.name for value in graph.output)
    kept = []
    for node in reversed(graph.node):
        if any(name in needed for name in node.output):
            kept.append(node)
            needed.update(node.input)
    nodes = [type(node).FromString(node.SerializeToString()) for node in reversed(kept)]
    del graph.node[:]
    graph.node.extend(nodes)
    initializers = [tensor for tensor in graph.initializer if tensor.name in needed]
    initializers = [type(tensor).FromString(tensor.SerializeToString()) for tensor in initializers]
    del graph.initializer[:]
    graph.initializer.extend(initializers)
    for name in [name for name in values if name not in needed]:
        del values[name]
