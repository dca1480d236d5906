"""What Convolution, Deconvolution and Im2col share: the sliding window in N dimensions and the parameters' blobs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pycaffe.blob import Shape
from pycaffe.errors import LayerError, ShapeError
from pycaffe.layers._base import Layer, canonical_axis
from pycaffe.layers._torch import Tensor, torch

__all__ = ["BaseConvolutionLayer", "ConvolutionWindow", "convolve", "convolve_transposed", "im2col"]

Extents = tuple[int, ...]
NATIVE_AXES = 3  # torch has conv1d, conv2d and conv3d


@dataclass(frozen=True)
class ConvolutionWindow:
    """Kernel, stride, pad and dilation, one number for each spatial axis (base_conv_layer.cpp)."""

    kernel: Extents
    stride: Extents
    pad: Extents
    dilation: Extents

    @classmethod
    def of(cls, param: Any, num_axes: int) -> ConvolutionWindow:
        """From a ConvolutionParameter, for `num_axes` spatial axes.

        Raises:
            LayerError: a number is given neither once nor once per axis, or twice under two names, or is zero.
        """
        if param.HasField("kernel_h") or param.HasField("kernel_w"):
            kernel = _height_width(param, "kernel", "kernel_size", num_axes)
        elif len(param.kernel_size) in (1, num_axes):
            kernel = _per_axis(param.kernel_size, num_axes)
        else:
            raise LayerError(_once_or_each("kernel_size", param.kernel_size, num_axes))
        if any(extent <= 0 for extent in kernel):
            raise LayerError(f"Filter dimensions must be nonzero. Got kernel {kernel!r}.")
        stride = _optional(param, "stride", 1, num_axes)
        if any(step <= 0 for step in stride):
            raise LayerError(f"Stride dimensions must be nonzero. Got stride {stride!r}.")
        dilation = _dilation(param, num_axes)
        if any(step <= 0 for step in dilation):
            raise LayerError(f"Dilation must be nonzero. Got dilation {dilation!r}.")
        return cls(kernel, stride, _optional(param, "pad", 0, num_axes), dilation)

    @property
    def extent(self) -> Extents:
        """How far a dilated kernel reaches on each axis."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation))

    def output(self, spatial: Sequence[int]) -> Extents:
        """Extents after a convolution.

        Caffe's division truncates towards zero: a kernel that overhangs the padded image by less than a stride still
        gives one output.
        """
        return tuple(
            math.trunc((size + 2 * p - e) / s) + 1 for size, p, e, s in zip(spatial, self.pad, self.extent, self.stride)
        )

    def output_transposed(self, spatial: Sequence[int]) -> Extents:
        """Extents after a transposed convolution."""
        return tuple(s * (size - 1) + e - 2 * p for size, p, e, s in zip(spatial, self.pad, self.extent, self.stride))

    def end_pad(self, spatial: Sequence[int]) -> Extents:
        """Zeros behind the image: `pad`, or more where the one window of a small image reaches further."""
        return tuple(
            max(p, (out - 1) * s + e - p - size)
            for size, out, p, e, s in zip(spatial, self.output(spatial), self.pad, self.extent, self.stride)
        )

    def onnx(self) -> dict[str, list[int]]:
        """The attributes that ONNX's Conv and ConvTranspose share."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.stride),
            "dilations": list(self.dilation),
        }

    def with_axis(self) -> ConvolutionWindow:
        """With one more spatial axis that does nothing, where there is none."""
        return self if self.kernel else ConvolutionWindow((1,), (1,), (0,), (1,))


def _per_axis(values: Sequence[int], num_axes: int) -> Extents:
    return tuple(values) if len(values) == num_axes else (values[0],) * num_axes


def _once_or_each(name: str, values: Sequence[int], num_axes: int) -> str:
    return (
        f"{name} must be specified once, or once per spatial dimension "
        f"({name} specified {len(values)} times; {num_axes} spatial dims)."
    )


def _height_width(param: Any, short: str, name: str, num_axes: int) -> Extents:
    """`short`_h and `short`_w, of which a missing one counts as 0."""
    if num_axes != 2:
        raise LayerError(f"{short}_h & {short}_w can only be used for 2D convolution. Got {num_axes} spatial axes.")
    repeated = getattr(param, name)
    if len(repeated):
        raise LayerError(f"Either {name} or {short}_h/w should be specified; not both. Got {name} {list(repeated)!r}.")
    return getattr(param, f"{short}_h"), getattr(param, f"{short}_w")


def _optional(param: Any, name: str, default: int, num_axes: int) -> Extents:
    if name != "dilation" and (param.HasField(f"{name}_h") or param.HasField(f"{name}_w")):
        return _height_width(param, name, name, num_axes)
    values = getattr(param, name)
    if len(values) not in (0, 1, num_axes):
        raise LayerError(_once_or_each(name, values, num_axes))
    return _per_axis(values, num_axes) if len(values) else (default,) * num_axes


def _dilation(param: Any, num_axes: int) -> Extents:
    """`dilation`, or what DeepLab calls `hole`, which may also be hole_h and hole_w, both needed."""
    if not (len(param.hole) or param.HasField("hole_h") or param.HasField("hole_w")):
        return _optional(param, "dilation", 1, num_axes)
    if len(param.dilation):
        raise LayerError(
            "Either dilation or hole should be specified; not both. "
            f"Got dilation {list(param.dilation)!r}, hole {list(param.hole) or [param.hole_h, param.hole_w]!r}."
        )
    return _optional(param, "hole", 1, num_axes)


def _pad(x: Tensor, begin: Extents, end: Extents) -> Tensor:
    pads = [extent for pair in zip(reversed(begin), reversed(end)) for extent in pair]
    return torch.nn.functional.pad(x, pads)


def im2col(x: Tensor, window: ConvolutionWindow) -> Tensor:
    """(N, C, *spatial) -> (N, C * prod(kernel), *output): each window as a column, channel first (im2col.cpp)."""
    axes, spatial = len(window.kernel), tuple(x.shape[2:])
    x = _pad(x, window.pad, window.end_pad(spatial))
    for axis in range(axes):
        x = x.unfold(2 + axis, window.extent[axis], window.stride[axis])[..., :: window.dilation[axis]]
    x = x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
    return x.flatten(1, 1 + axes)


def _col2im(columns: Tensor, window: ConvolutionWindow) -> Tensor:
    """(N, C, *kernel, *input) -> (N, C, *output): the transpose of `im2col`; overlaps add up."""
    axes, every = len(window.kernel), slice(None)
    spatial = tuple(columns.shape[2 + axes :])
    full = [s * (size - 1) + e for size, s, e in zip(spatial, window.stride, window.extent)]
    image = columns.new_zeros((*columns.shape[:2], *full))
    for tap in itertools.product(*map(range, window.kernel)):
        starts = [t * d for t, d in zip(tap, window.dilation)]
        where = [slice(at, at + s * (n - 1) + 1, s) for at, s, n in zip(starts, window.stride, spatial)]
        onto, column = (every, every, *where), (every, every, *tap)
        image[onto] += columns[column]
    inside = (every, every, *(slice(p, size - p) for p, size in zip(window.pad, full)))
    return image[inside]


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, window: ConvolutionWindow, group: int) -> Tensor:
    """x: (N, C, *spatial); weight: (C', C / group, *kernel) -> (N, C', *output). At least one spatial axis."""
    axes, spatial = len(window.kernel), tuple(x.shape[2:])
    if axes <= NATIVE_AXES:
        native = getattr(torch.nn.functional, f"conv{axes}d")
        if axes == 2 and x.is_contiguous(memory_format=torch.channels_last):
            weight = weight.contiguous(memory_format=torch.channels_last)  # once, for forward and backward
        pad, end = window.pad, window.end_pad(spatial)
        if end != pad:
            x, pad = _pad(x, pad, end), (0,) * axes
        return native(x, weight, bias, window.stride, pad, window.dilation, group)
    columns = im2col(x, window).reshape(len(x), group, weight[0].numel(), -1)
    y = weight.reshape(group, len(weight) // group, -1) @ columns
    y = y.reshape(len(x), len(weight), *window.output(spatial))
    return y if bias is None else y + bias.reshape(-1, *(1,) * axes)


def convolve_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, window: ConvolutionWindow, group: int
) -> Tensor:
    """x: (N, C, *spatial); weight: (C, C' / group, *kernel) -> (N, C', *output). At least one spatial axis."""
    axes, spatial = len(window.kernel), tuple(x.shape[2:])
    if axes <= NATIVE_AXES:
        native = getattr(torch.nn.functional, f"conv_transpose{axes}d")
        return native(x, weight, bias, window.stride, window.pad, 0, group, window.dilation)
    columns = weight.reshape(group, len(weight) // group, -1).transpose(1, 2) @ x.reshape(
        len(x), group, len(weight) // group, -1
    )
    y = _col2im(columns.reshape(len(x), group * weight.shape[1], *window.kernel, *spatial), window)
    return y if bias is None else y + bias.reshape(-1, *(1,) * axes)


class BaseConvolutionLayer(Layer):
    """Parameters, blobs and shapes of Convolution and Deconvolution (base_conv_layer.cpp).

    convolution_param:
        num_output: C', the channels of the tops.
        kernel_size, stride, pad, dilation: once, or once per spatial axis; in 2-D also kernel_h, kernel_w, stride_h,
            ...; by default stride 1, pad 0, dilation 1. DeepLab calls dilation `hole`, in 2-D also hole_h and hole_w.
        group: 1; input and output channels are split into so many groups that do not see each other.
        bias_term: true.  axis: 1; the channel axis: all before it are a batch, all behind it are spatial.
        weight_filler, bias_filler.  force_nd_im2col, engine: accepted, without effect on the numbers.
    """

    min_bottom_blobs = 1
    min_top_blobs = 1
    equal_num_bottom_top_blobs = True
    computes_tops = True
    transposed: ClassVar[bool] = False

    def setup(self, bottom: list[Shape]) -> None:
        param, shape = self.layer_param.convolution_param, bottom[0]
        self.axis = canonical_axis(param.axis, len(shape))
        self.num_axes = len(shape)
        self.window = ConvolutionWindow.of(param, len(shape) - self.axis - 1)
        self.channels, self.num_output, self.group = shape[self.axis], param.num_output, param.group
        if self.num_output <= 0:
            raise self.error(f"Check failed: num_output_ > 0. Got num_output {self.num_output!r}.")
        if self.group <= 0 or self.channels % self.group:
            raise self.error(
                f"Check failed: channels_ % group_ == 0. Got {self.channels!r} channels and group {self.group!r}."
            )
        if self.num_output % self.group:
            raise self.error(
                "Number of output should be multiples of group. "
                f"Got num_output {self.num_output!r} and group {self.group!r}."
            )
        outer, inner = (self.channels, self.num_output) if self.transposed else (self.num_output, self.channels)
        self.add_blob((outer, inner // self.group, *self.window.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob((self.num_output,), param.bias_filler)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if len(shape) != self.num_axes:
            raise ShapeError(f"bottom num_axes may not change. Expected {self.num_axes} axes, got shape {shape!r}.")
        if shape[self.axis] != self.channels:
            raise ShapeError(
                "Input size incompatible with convolution kernel. "
                f"Expected {self.channels} channels, got {shape[self.axis]}, shape {shape!r}."
            )
        for index, other in enumerate(bottom):
            if other != shape:
                raise ShapeError(f"shape mismatch - bottom[0]: {shape!r} vs. bottom[{index}]: {other!r}.")
        spatial = shape[self.axis + 1 :]
        output = self.window.output_transposed(spatial) if self.transposed else self.window.output(spatial)
        if any(extent < 1 for extent in output):
            raise ShapeError(
                f"Check failed: shape[i] >= 0. The output would have extents {output!r}: input {spatial!r}, "
                f"{self.window!r}. Give a larger input or more pad."
            )
        return [(*shape[: self.axis], self.num_output, *output)] * len(bottom)

    def multiply_adds(self) -> int:
        one_way = self.bottom_shapes if self.transposed else self.top_shapes
        return sum(map(math.prod, one_way)) * math.prod(self.blobs[0].shape[1:])

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        function = convolve_transposed if self.transposed else convolve
        window, weight = self.window.with_axis(), params[0]
        bias = params[1] if len(params) > 1 else None
        if not self.window.kernel:
            weight = weight.unsqueeze(-1)
        tops = []
        plain = self.axis == 1 and bool(self.window.kernel)  # a reshape could lose a layout that only strides tell
        for x, top_shape in zip(bottom, self.top_shapes):
            spatial = self.bottom_shapes[0][self.axis + 1 :] or (1,)
            x = x if plain else x.reshape(-1, self.channels, *spatial)
            top = function(x, weight, bias, window, self.group)
            tops.append(top if plain else top.reshape(top_shape))
        return tops

    def _is_inner_product(self, op_type: str, pads: list[int]) -> bool:
        """Whether each filter covers the whole input, of a batch of several: at batch 1 both forms take as long."""
        batch, spatial = self.bottom_shapes[0][0], self.bottom_shapes[0][self.axis + 1 :]
        covers = tuple(self.window.kernel) == spatial and math.prod(self.top_shapes[0][self.axis + 1 :]) == 1
        return op_type == "Conv" and batch > 1 and self.group == 1 and covers and not any(pads)

    def lower_one(self, g: Any, x: str, params: list[str], op_type: str, pads: list[int]) -> str:
        """One bottom through Conv or ConvTranspose, with the axes around it arranged."""
        plain = self.axis == 1 and bool(self.window.kernel)
        spatial = self.bottom_shapes[0][self.axis + 1 :] or (1,)
        weight, *bias = params
        if not self.window.kernel:
            weight = g.reshape(weight, (0, 0, 1))
        if plain and self._is_inner_product(op_type, pads):
            # onnxruntime runs a product of matrices several times as fast as a convolution with one place to stand.
            matrix = g.reshape(weight, (self.num_output, -1))
            product = g.op("Gemm", g.op("Flatten", x, axis=1), matrix, *bias, transB=1)
            return str(g.reshape(product, (-1, *self.top_shapes[0][1:])))
        if not plain:
            x = g.reshape(x, (-1, self.channels, *spatial))
        y: str = g.op(op_type, x, weight, *bias, pads=pads, group=self.group, **self.window.with_axis().onnx())
        if plain:
            return y
        top = self.top_shapes[0]
        return str(g.reshape(y, (-1, *top[1:]) if self.axis else top))
