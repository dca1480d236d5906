"""A 1×1 convolution with a banded matrix, the sum over near channels in LRN, computed without the band's zeros.

    y[c] = sum over d of band[d] x[c + d]

LRN lowers to such a convolution (layers/lrn.py), which onnxruntime computes as any other: 192 multiplications where 5
would do. But with channels as the height of an image, and pixels in blocks as its channels, it is a depthwise
convolution of 5×1 in onnxruntime's blocked layout (`blocked_layout.py`), and no number has to move:

    (N, C, H, W) in memory is [N][C][H W / block][block], a blocked image (N, block, C, H W / block)

Where pixels do not fill whole blocks, they are padded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.engines.rewrites.blocked_layout import DOMAIN, block_size, blocked_weight, import_domain
from pycaffe.engines.rewrites.fold_batch_norm import drop_unused
from pycaffe.engines.rewrites.value_shapes import value_shapes

__all__ = ["use_channel_taps"]

PLAIN = {"dilations": [1, 1], "group": 1, "kernel_shape": [1, 1], "pads": [0, 0, 0, 0], "strides": [1, 1]}


def use_channel_taps(model: Any) -> None:
    """Rewrites an ONNX model in place, for onnxruntime on a CPU."""
    from onnx import helper

    block = block_size()
    inside = {t.name: t for t in model.graph.initializer if t.data_location != t.EXTERNAL}
    found = {node.output[0]: band for node in model.graph.node if (band := _band(node, inside)) is not None}
    if not found or block == 1:
        return
    shapes = value_shapes(model)
    nodes: list[Any] = []
    for node in model.graph.node:
        shape = shapes.get(node.input[0], ()) if node.output[0] in found else ()
        extents = [extent for extent in shape[1:] if isinstance(extent, int)]
        if len(extents) == 3:
            nodes += _channel_taps(model, node, *found[node.output[0]], extents, block)
            # Nobody infers shapes through onnxruntime's domain.
            known = helper.make_tensor_value_info(node.output[0], helper.TensorProto.FLOAT, shape)
            model.graph.value_info.append(known)
            import_domain(model)
        else:
            nodes.append(node)
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]  # they may lie in the graph itself
    del model.graph.node[:]
    model.graph.node.extend(copies)
    drop_unused(model, {})


def _channel_taps(model: Any, node: Any, band: FloatArray, bias: float, extents: list[int], block: int) -> list[Any]:
    """The nodes in place of a convolution.

    Squares are computed of the image in its new shape: onnxruntime would else compute them in its own blocks of
    channels, and have both the values and their squares to reorder.
    """
    from onnx import helper, numpy_helper

    name, source, half = node.output[0], node.input[0], len(band) // 2
    nodes: list[Any] = []

    def add(op_type: str, *operands: Any, **attributes: Any) -> str:
        names = []
        for i, operand in enumerate(operands):
            if not isinstance(operand, str):
                model.graph.initializer.append(numpy_helper.from_array(operand, f"{name}/constant{len(nodes)}-{i}"))
                operand = model.graph.initializer[-1].name
            names.append(operand)
        output = f"{name}/{op_type}{len(nodes)}"
        nodes.append(helper.make_node(op_type, names, [output], output, **attributes))
        return output

    squared = next((m.input[0] for m in model.graph.node if m.output[0] == source and _is_square(m)), None)
    x, channels, pixels = squared or source, extents[0], math.prod(extents[1:])
    blocks = -(-pixels // block)  # 0 copies the batch's extent, which may be 0: so none is left open
    if pixels % block:
        x = add("Reshape", x, np.array([0, channels, pixels]))
        x = add("Pad", x, np.array([0, 0, 0, 0, 0, -pixels % block]))
    x = add("Reshape", x, np.array([0, block, channels, blocks]))
    x = add("Mul", x, x) if squared else x
    kernel = blocked_weight(np.broadcast_to(band.reshape(1, 1, -1, 1), (block, 1, len(band), 1)), block)
    sizes = {"kernel_shape": [len(band), 1], "pads": [half, 0, half, 0], "group": block}
    x = add("Conv", x, kernel, np.full(block, bias, np.float32), domain=DOMAIN, **sizes)
    if pixels % block:
        x = add("Reshape", x, np.array([0, channels, blocks * block]))
        x = add("Slice", x, *(np.array([number]) for number in (0, pixels, 2)))
    add("Reshape", x, np.array([0, *extents]))
    nodes[-1].output[0] = name
    return nodes


def _is_square(node: Any) -> bool:
    return bool(node.op_type == "Mul" and node.input[0] == node.input[1])


def _band(node: Any, inside: dict[str, Any]) -> tuple[FloatArray, float] | None:
    """What a node adds up of each channel and those around it, and what it adds to that; None where it does not."""
    from onnx import helper, numpy_helper

    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    operands = [inside.get(name) for name in node.input[1:]]
    if node.op_type != "Conv" or {**PLAIN, **attributes} != PLAIN or len(operands) != 2 or None in operands:
        return None
    weight, bias = (numpy_helper.to_array(tensor) for tensor in operands)
    if weight.ndim != 4 or weight.shape[0] != weight.shape[1] or np.ptp(bias):
        return None
    matrix = weight[:, :, 0, 0]
    rows, columns = matrix.nonzero()
    half = int(abs(rows - columns).max(initial=0))
    diagonals = [matrix.diagonal(offset) for offset in range(-half, half + 1)]
    if 2 * half + 1 >= len(matrix) or any(np.ptp(diagonal) for diagonal in diagonals):
        return None
    return np.array([diagonal[0] for diagonal in diagonals], np.float32), float(bias[0])
