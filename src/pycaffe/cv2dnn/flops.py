"""Floating-point operations of one layer, as OpenCV's `getFLOPS` counts them, which is not always what one would count.

A convolution counts 2·kh·kw·C + 1 for each output value, C being all channels of the input whatever `group` says; an
inner product 3 for each weight it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from pycaffe.blob import Shape

__all__ = ["layer_flops"]

Shapes = Sequence[Shape]

# Operations for each output value, of layers where nothing else counts.
PER_VALUE = {
    "AbsVal": 1,
    "BNLL": 5,
    "BatchNorm": 3,
    "ELU": 2,
    "Exp": 3,
    "HardSwish": 1,
    "Log": 1,
    "Mish": 3,
    "PReLU": 1,
    "ReLU": 1,
    "ReLU6": 2,
    "Scale": 2,
    "Sigmoid": 3,
    "Softmax": 4,
    "Swish": 3,
    "TanH": 1,
}


def layer_flops(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    """The operations of one forward of a layer; 0 for types that OpenCV does not count.

    Args:
        layer: the layer, whose parameters and blobs count.
        bottoms: the shapes that it reads.
        tops: the shapes that it makes.
    """
    if layer.type in PER_VALUE:
        return PER_VALUE[layer.type] * _total(tops)
    count = COUNTED.get(layer.type)
    return 0 if count is None else count(layer, bottoms, tops)


def _total(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _convolution(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    kernel = math.prod(layer.blobs[0].shape[2:])
    return sum(math.prod(top) * (2 * kernel * bottom[1] + 1) for bottom, top in zip(bottoms, tops))


def _deconvolution(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    kernel = math.prod(layer.blobs[0].shape[2:])
    channels = layer.blobs[0].shape[0]  # of the input; OpenCV takes them for those of the output
    return sum(2 * channels * kernel * math.prod(bottom) for bottom in bottoms)


def _inner_product(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    weights_of_a_value = layer.blobs[0].count // layer.layer_param.inner_product_param.num_output
    return 3 * int(weights_of_a_value) * _total(tops)


def _eltwise(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    return len(bottoms) * math.prod(bottoms[0])


def _pooling(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    param = layer.layer_param.pooling_param
    height, width = param.kernel_h or param.kernel_size, param.kernel_w or param.kernel_size
    kernel: int = 1 if param.global_pooling else height * width
    return math.prod(tops[0]) * (kernel if param.pool == 0 else kernel + 1)  # 0 is MAX


def _lrn(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    images, channels, *plane = bottoms[0]
    param = layer.layer_param.lrn_param
    size, pixels = int(param.local_size), math.prod(plane)
    if param.norm_region:  # WITHIN_CHANNEL
        return math.prod(bottoms[0]) * (2 * size * size + 2)
    half = (size - 1) // 2
    flops = images * (2 * min(half, channels) + 4 * channels) * pixels
    return flops + (size + 2 * (channels - size)) * pixels if half < channels else flops


def _mvn(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    axes = 1 if layer.layer_param.mvn_param.across_channels else 2
    return sum(6 * math.prod(bottom) + 3 * math.prod(bottom[:axes]) for bottom in bottoms)


def _power(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    return (2 if layer.layer_param.power_param.power == 1 else 10) * math.prod(tops[0])


def _prior_box(layer: Any, bottoms: Shapes, tops: Shapes) -> int:
    values = tops[0][2]  # 4 for each box of each position
    return sum(math.prod(bottom[2:]) for bottom in bottoms) * (values // math.prod(bottoms[0][2:]))


COUNTED: dict[str, Callable[[Any, Shapes, Shapes], int]] = {
    "Convolution": _convolution,
    "ConvolutionDepthwise": _convolution,
    "Deconvolution": _deconvolution,
    "DepthwiseConvolution": _convolution,
    "Eltwise": _eltwise,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "MVN": _mvn,
    "Pooling": _pooling,
    "Power": _power,
    "PriorBox": _prior_box,
}
