"""The extents of values in an ONNX model, as far as they can be inferred."""

from __future__ import annotations

from typing import Any

__all__ = ["value_shapes"]


def value_shapes(model: Any) -> dict[str, tuple[int | str, ...]]:
    """The shapes of inputs and of what nodes compute, by name; a name, or "", in place of an extent that is open."""
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input]
    return {
        value.name: tuple(d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim)
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
