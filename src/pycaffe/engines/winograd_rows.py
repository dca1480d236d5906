"""Computes 3×3 convolutions with half of the multiplications: Winograd's F(4, 3) along the height alone.

The form in tiles (`pycaffe.engines.winograd`) saves more multiplications and moves more memory. Here four rows of
outputs depend on six rows of inputs, with the same matrices:

    y = Aᵀ [ sum over input channels of (G w) * (Bᵀ d) ]

where * is a convolution along the width. In ONNX: Bᵀ as six depthwise convolutions of stride 4, six 1×3 convolutions,
and Aᵀ as one product, with the four rows where they belong.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.engines.winograd_graph import KERNEL, OUTPUT, TILE, WINDOW, WinogradGraph

__all__ = ["in_rows", "rows_pay"]


def rows_pay(channels: int, outputs: int, height: int, width: int) -> bool:
    """Whether a 3×3 convolution of this shape is faster by rows, where tiles do not pay.

    Measured on a Xeon with AVX-512, 2 threads, onnxruntime's Conv against this, in medians at batch 1, and at 8 (75×75:
    4) in brackets: 256 channels at 28×28 1.23 (1.18) times as fast, at 56×56 1.29 (1.27), at 75×75 1.18 (1.17); 512 at
    19×19 1.28 (1.26), at 14×14 1.04 (1.15). No gain at 112×112×128 and from 128 to 256 channels at 56×56.
    VGG-16's least time became 11 % shorter at batch 1 and 8 % at batch 8, with what 1×1 convolutions gave the tiles.
    Weights become twice as many; beside the same net before both, its load takes 1.0 s instead of 0.55 s.
    """
    fewest, low, high = min(channels, outputs), min(height, width), max(height, width)
    return low >= (12 if fewest >= 512 else 24) and high <= 80 and fewest >= 256 and channels % 16 == 0


def in_rows(graph: WinogradGraph, node: Any, shape: tuple[int, ...], height: int, width: int) -> list[Any]:
    """The nodes in place of a convolution with weights of a shape."""
    graph.begin(node)
    outputs, channels = shape[:2]
    down = -(-height // TILE)
    rows = graph.transformed([node.input[0]], channels, 0, height)
    matrices = [np.kron(row, np.eye(3, dtype=np.float32)) for row in KERNEL]
    products = graph.products(rows, node, shape, matrices, ones=1)
    x = graph.add("Concat", [graph.reshape(x, [0, outputs * down, width]) for x in products], axis=2)
    x = graph.add("MatMul", [graph.constant("output-rows", OUTPUT), graph.reshape(x, [-1, WINDOW, width])])
    x = graph.reshape(x, [-1, outputs, TILE * down, width])
    return graph.end(x, (TILE * down, width), (height, width))
