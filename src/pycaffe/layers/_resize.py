"""What layers that resample planes share: sizes as ONNX wants them, bilinear sampling from the corner."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._torch import Tensor, torch

__all__ = ["Size", "check_planes", "lower_resize", "sample_from_corner"]

Size = tuple[int, int]  # height, width


def check_planes(layer: str, shape: Shape) -> tuple[int, int, int, int]:
    """N, C, H, W of a shape.

    Raises:
        ShapeError: there are not 4 axes, or a plane is empty.
    """
    if len(shape) != 4 or 0 in shape[2:]:
        raise ShapeError(f"{layer}'s bottom has 4 axes (N, C, H, W) and no empty planes. Got shape {shape!r}.")
    return shape[0], shape[1], shape[2], shape[3]


def _scale(extent: int, wanted: int) -> np.float32:
    """A factor with which float32 arithmetic, cut off, gives exactly the extent that is wanted."""
    scale: np.float32 = np.float32(wanted / extent)
    while np.float32(extent) * scale < wanted:
        scale = np.float32(np.nextafter(scale, np.float32(np.inf)))
    return scale


def lower_resize(g: Lowering, x: str, size: Size, wanted: Size, **attributes: Any) -> str:
    """ONNX's Resize of planes of `size` to `wanted`; by factors, since sizes would name the batch's extent, too."""
    scales = g.constant(np.array([1, 1, *map(_scale, size, wanted)], np.float32))
    return g.op("Resize", x, "", scales, **attributes)


def sample_from_corner(x: Tensor, size: Size) -> Tensor:
    """Bilinear samples of x (N, C, H, W) at i * extent / wanted: the corners' centres meet (ONNX's "asymmetric")."""
    for axis, wanted in zip((2, 3), size):
        extent = x.shape[axis]
        place = torch.arange(wanted, dtype=x.dtype, device=x.device) * (extent / wanted)
        first = place.floor().clamp(max=extent - 1)
        share = (place - first).reshape(-1, *(1,) * (3 - axis))
        near, far = first.long(), (first.long() + 1).clamp(max=extent - 1)
        x = x.index_select(axis, near) * (1 - share) + x.index_select(axis, far) * share
    return x
