"""How coordinates of one top map to another's, from a `NetSpec`: what a Crop layer between them must cut off.

A map is (axis, scale, shift): position x of the bottom lies at scale * x + shift of the top, on the axes after `axis`.
Scale and shift are numbers, or arrays with one entry a spatial axis. (None, 1, 0) is the identity on any axis.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from caffe.net_spec import Function, Top
from caffe.net_spec import layers as L
from pycaffe.errors import NetError

__all__ = [
    "AxisMismatchException",
    "CropException",
    "PASS_THROUGH_LAYERS",
    "UndefinedMapException",
    "compose",
    "conv_params",
    "coord_map",
    "coord_map_from_to",
    "crop",
    "crop_params",
    "inverse",
]

CoordMap = tuple[Any, Any, Any]

PASS_THROUGH_LAYERS = [
    "AbsVal",
    "BatchNorm",
    "Bias",
    "BNLL",
    "Dropout",
    "Eltwise",
    "ELU",
    "Log",
    "LRN",
    "Exp",
    "MVN",
    "Power",
    "ReLU",
    "PReLU",
    "Scale",
    "Sigmoid",
    "Split",
    "TanH",
    "Threshold",
]
_LEGACY_PARAMS = {"pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w"}


class UndefinedMapException(NetError):
    """A layer has no coordinate map."""


class AxisMismatchException(NetError):
    """Two maps are about different axes."""


class CropException(NetError, AssertionError):
    """No Crop layer can do what was asked. An AssertionError, since the original asserts."""


def conv_params(fn: Function) -> tuple[int, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """(axis, stride, kernel size with dilation, pad) of a Convolution, Deconvolution, Im2col or Pooling layer.

    Raises:
        CropException: the layer uses the old fields `kernel_h`, `pad_w` and so on, for which maps are not defined.
    """
    legacy = sorted(_LEGACY_PARAMS & set(fn.params))
    if legacy:
        raise CropException(f"cropping does not support legacy _h/_w params; the {fn.type_name} layer has {legacy}")
    params = fn.params.get("convolution_param", fn.params)
    dilation = np.array(params.get("dilation", 1), ndmin=1)
    kernel = (np.array(params["kernel_size"], ndmin=1) - 1) * dilation + 1
    return (
        params.get("axis", 1),
        np.array(params.get("stride", 1), ndmin=1),
        kernel,
        np.array(params.get("pad", 0), ndmin=1),
    )


def crop_params(fn: Function) -> tuple[int, npt.NDArray[Any]]:
    """(axis, offset) of a Crop layer, with Caffe's defaults 2 and 0."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> CoordMap:
    """The map of one layer.

    Raises:
        UndefinedMapException: coordinates have no meaning across this type of layer.
    """
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, kernel, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = conv_params(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return None, 1, 0
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # a map's axis is the last one without coordinates
    raise UndefinedMapException(f"Layer type {fn.type_name} has no coordinate map")


def compose(base_map: CoordMap, next_map: CoordMap) -> CoordMap:
    """The map that applies `next_map`, then `base_map`: scale a1 * a2, shift a1 * b2 + b1.

    Raises:
        AxisMismatchException: the maps are about different axes.
    """
    axis1, scale1, shift1 = base_map
    axis2, scale2, shift2 = next_map
    if axis1 is not None and axis2 is not None and axis1 != axis2:
        raise AxisMismatchException(f"Cannot compose coordinate maps of axis {axis1} and axis {axis2}")
    return (axis2 if axis1 is None else axis1), scale1 * scale2, scale1 * shift2 + shift1


def inverse(coord_map: CoordMap) -> CoordMap:
    """The map back: scale 1 / a, shift -b / a."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """The map between two tops, through a blob that both are computed from.

    Raises:
        NetError: (a RuntimeError) no such blob can be reached through layers that have a map.
    """
    from_maps = _maps_to_ancestors(top_from)
    to_maps = _maps_to_ancestors(top_to)
    for ancestor, to_map in to_maps.items():
        if ancestor in from_maps:
            return compose(to_map, inverse(from_maps[ancestor]))
    raise NetError("Could not compute map between tops; are they connected by spatial layers?")


def _maps_to_ancestors(start: Top) -> dict[Top, CoordMap]:
    """The map from `start` to each top that it is computed from, nearest first."""
    maps: dict[Top, CoordMap] = {start: (None, 1, 0)}
    frontier = [start]
    while frontier:
        top = frontier.pop(0)
        try:
            for bottom in _mapped_bottoms(top):
                if bottom not in maps:
                    maps[bottom] = compose(maps[top], coord_map(top.fn))
                    frontier.append(bottom)
        except UndefinedMapException:
            continue
    return maps


def _mapped_bottoms(top: Top) -> list[Top]:
    """The bottoms with the layer's coordinates: all, but of Crop only the one that is cut."""
    bottoms = list(top.fn.inputs)
    return bottoms[:1] if top.fn.type_name == "Crop" else bottoms


def crop(top_from: Top, top_to: Top) -> Any:
    """The top of a new Crop layer that cuts `top_from` so that it lies exactly over `top_to`.

    Raises:
        CropException: (an AssertionError) the tops differ in scale, or `top_to` begins outside of `top_from` or
            between its pixels.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    if not np.all(scale == 1):
        raise CropException(f"scale mismatch on crop (a = {scale})")
    if not np.all(np.asarray(shift) <= 0):
        raise CropException(f"cannot crop negative offset (b = {shift})")
    if not np.all(np.round(shift) == shift):
        raise CropException(f"cannot crop noninteger offset (b = {shift})")
    offset = [int(-value) for value in np.atleast_1d(np.round(shift))]
    # Without any layer that moves coordinates the axis is open: that of images is taken.
    return L.Crop(top_from, top_to, crop_param={"axis": (1 if axis is None else axis) + 1, "offset": offset})
