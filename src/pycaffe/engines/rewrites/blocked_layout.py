"""The layout that onnxruntime's convolutions work in on a CPU: channels in blocks of the width of a vector register.

    (N, C, H, W) lies as [N][C / block][H][W][block]

In memory a row of a block of channels, W · block numbers, is one piece. onnxruntime changes layouts by itself around
convolutions and poolings, but then nothing else may work on what lies between. Here nodes are written in its own domain
of operators, and all others may read blocked values as well, as long as they know how these lie.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.engines.runtime import load_onnxruntime

__all__ = ["DOMAIN", "block_size", "blocked_weight", "import_domain"]

DOMAIN = "com.microsoft.nchwc"
CHANNELS = 64  # of the probe: a multiple of every block


@functools.cache
def block_size() -> int:
    """How many channels a block has on this machine: 16 with AVX-512, 8 with AVX; 1 where nothing is blocked.

    Asked of onnxruntime itself, which reorders the numbers of 64 channels and 2 pixels: the second pixel of the first
    channel comes behind the first block.
    """
    from onnx import TensorProto, helper

    onnxruntime = load_onnxruntime()
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, 1, 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("ReorderInput", ["x"], ["y"], domain=DOMAIN)], "blocks", [x], [y])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return 1  # a release without these operators
    numbers = np.arange(2.0 * CHANNELS, dtype=np.float32).reshape(1, CHANNELS, 1, 2)
    return int(np.flatnonzero(session.run(None, {"x": numbers})[0].reshape(-1) == 1)[0])


def blocked_weight(weight: FloatArray, block: int) -> FloatArray:
    """The weights (outputs, channels, height, width) of a convolution, as it reads them; the shape stays.

    They lie as [outputs / block][channels / block][height][width][channel in its block][output in its block], or
    without the channels where there is one, that of a depthwise convolution.
    """
    outputs, channels, height, width = weight.shape
    inner = 1 if channels == 1 else block
    blocks: Any = weight.reshape(outputs // block, block, channels // inner, inner, height, width)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 5, 3, 1)).reshape(weight.shape)


def import_domain(model: Any) -> None:
    """Lets a model use operators of `DOMAIN`."""
    from onnx import helper

    if all(opset.domain != DOMAIN for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
