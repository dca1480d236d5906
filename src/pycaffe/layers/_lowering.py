"""Builds the ONNX graph that layers lower themselves into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import NetError

__all__ = ["Lowering", "NotLowerable", "OPSET"]

OPSET = 17


class NotLowerable(NetError):
    """A layer, with the parameters it has, cannot be expressed in ONNX; the message says why."""


class Lowering:
    """Collects ONNX nodes and constants; layers call it from `lower`.

    Values are named by strings. `op("Relu", x)` adds a node and returns the name of its output; `constant(array)`
    adds an initializer. Names are unique by construction: a prefix says which layer a node came from.
    """

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.prefix = ""
        self._count = 0
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def unique(self, hint: str) -> str:
        """A name that nothing else has."""
        self._count += 1
        return f"{self.prefix}/{hint}_{self._count}"

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node and returns the name of its output. An empty input name leaves an optional input out."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Adds a node with several outputs and returns their names."""
        from onnx import helper

        names = [self.unique(op_type) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op_type, list(inputs), names, name=names[0], **attributes))
        return names

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """Adds a constant (float32 unless said otherwise) and returns its name; equal constants are kept once."""
        from onnx import numpy_helper

        array = np.ascontiguousarray(np.asarray(value, dtype))
        array = array.reshape(np.shape(value))  # ascontiguousarray makes a vector of a scalar
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.unique("constant")
            self.initializers.append(numpy_helper.from_array(array, name))
            self._constants[key] = name
        return self._constants[key]

    def shape(self, dims: Sequence[int]) -> str:
        """An int64 vector: what Reshape, Expand, Slice and the like take. 0 copies the input's extent, -1 infers it."""
        return self.constant(np.asarray(dims, np.int64), np.int64)

    def reshape(self, value: str, dims: Sequence[int]) -> str:
        """Reshape; `dims` as in `shape`."""
        return self.op("Reshape", value, self.shape(dims))
