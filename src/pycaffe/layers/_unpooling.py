"""Unpooling with a pooling's mask: what Upsample and MaxUnpool share."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._torch import Tensor, torch

__all__ = ["MaskedUnpooling", "check_mask", "lower_unpool", "unpool"]

ONNX_INT64 = 7  # TensorProto.DataType


def check_mask(bottom: list[Shape]) -> None:
    """Raises ShapeError unless values and mask have one shape (N, C, H, W)."""
    values, mask = bottom
    if len(values) != 4:
        raise ShapeError(
            f"Input must have 4 axes, corresponding to (num, channels, height, width). Got shape {values!r}."
        )
    if values != mask:
        raise ShapeError(f"Check failed: the mask has the shape of the values. Got {values!r} and the mask {mask!r}.")


def _places(mask: Tensor, plane: int) -> Tensor:
    """The mask (N, C, H, W) as places in a plane: (N, C, H * W) integers.

    Raises:
        InputError: a place is outside the plane.
    """
    flat = mask.flatten(2)
    wrong = ~((flat >= 0) & (flat < plane))  # NaN, too
    if bool(wrong.any()):
        raise InputError(
            f"upsample top index {float(flat[wrong][0])!r} out of range - check scale settings match input pooling "
            f"layer's downsample setup. The top has {plane!r} places in a plane."
        )
    return flat.long()


def unpool(x: Tensor, mask: Tensor, height: int, width: int) -> Tensor:
    """x: (N, C, H, W) -> (N, C, height, width): each value at its place, zeros elsewhere; the last of several stays."""
    places, values = _places(mask, height * width), x.flatten(2)
    order = torch.arange(values.shape[2], device=x.device).expand_as(places)
    winner = torch.full((*values.shape[:2], height * width), -1, device=x.device)
    winner = winner.scatter_reduce(2, places, order, "amax")
    y = torch.where(winner >= 0, values.gather(2, winner.clamp(min=0)), values.new_zeros(()))
    return y.reshape(*x.shape[:2], height, width)


def lower_unpool(g: Lowering, x: str, mask: str, height: int, width: int) -> str:
    """`unpool` in ONNX; onnxruntime refuses to run with a place outside the plane."""
    plane = height * width
    places = g.op("Cast", g.reshape(mask, (0, 0, -1)), to=ONNX_INT64)
    negative = g.op("Less", places, g.shape([0]))  # ONNX counts those from the end; the plane's size is out of bounds
    places = g.op("Where", negative, g.shape([plane]), places)
    extents = g.op("Concat", g.op("Shape", x, start=0, end=2), g.shape([plane]), axis=0)
    zeros = g.op("Expand", g.constant(0.0), extents)
    y = g.op("ScatterElements", zeros, places, g.reshape(x, (0, 0, -1)), axis=2)
    return g.reshape(y, (0, 0, height, width))


class MaskedUnpooling(Layer):
    """A layer that puts values back where a mask says they came from; the mask gets no gradient.

    Where several values have one place, each of them gets that place's gradient, as in SegNet's upsample_layer.cpp:
    autograd would give it to the one that stayed.
    """

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 1

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        places = _places(bottom[1], top_diff[0][0, 0].numel())
        return [top_diff[0].flatten(2).gather(2, places).reshape(bottom[0].shape), None], []
