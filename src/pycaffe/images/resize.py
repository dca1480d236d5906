"""Resizing with NumPy alone: separable, so that the cost is that of the rows and columns that the result needs.

Two conventions of where pixels lie:
    half-pixel  x = (i + 0.5) * old / new - 0.5     scikit-image's `resize`, OpenCV's `resize`
    corners     x = i * (old - 1) / (new - 1)       SciPy's `zoom`, and Caffe's Interp layer
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError

__all__ = ["resize_corners", "resize_linear", "resize_nearest", "resize_shorter_side"]

FloatArray = npt.NDArray[np.floating[Any]]


def resize_linear(image: npt.NDArray[Any], shape: tuple[int, int], border: float | None = None) -> FloatArray:
    """Linear interpolation at half-pixel positions, without smoothing first.

    Args:
        image: (H, W, C).
        shape: the new (H', W').
        border: what lies outside the image. None repeats the edge, as OpenCV does; a number is mixed into the outermost
            pixels of an enlarged image, as scikit-image's `resize(..., mode="constant")` does.

    Returns:
        (H', W', C), float32, or float64 where `image` is wider than float32.

    Raises:
        InputError: `image` has not three dimensions, or a side is not positive.
    """
    _check(image, shape)
    positions = [_half_pixel(old, new) for old, new in zip(image.shape, shape)]
    result = _interpolate(image, positions)
    inside = [_share_inside(position, old) for position, old in zip(positions, image.shape)]
    if border is not None and (inside[0].min() < 1 or inside[1].min() < 1):
        share = (inside[0][:, None] * inside[1]).astype(result.dtype)[:, :, None]
        result -= border
        result *= share
        result += border
    return result


def resize_nearest(image: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
    """The nearest pixel at half-pixel positions, ties to the next one. (H, W, C) → (H', W', C) of the same dtype."""
    _check(image, shape)
    rows, columns = (
        np.clip(np.floor(_half_pixel(old, new) + 0.5).astype(np.intp), 0, old - 1)
        for old, new in zip(image.shape, shape)
    )
    return image[rows[:, None], columns]


def resize_corners(image: npt.NDArray[Any], shape: tuple[int, int]) -> FloatArray:
    """Linear interpolation between corners that stay corners. (H, W, C) → (H', W', C), float32 or float64."""
    _check(image, shape)
    steps = [(old - 1) / (new - 1) if new > 1 else 1.0 for old, new in zip(image.shape, shape)]
    return _interpolate(image, [np.arange(new) * step for new, step in zip(shape, steps)])


def resize_shorter_side(image: npt.NDArray[Any], size: int) -> FloatArray:
    """Scales so that the shorter side becomes `size`. (H, W, C) → (H', W', C), the longer side rounded."""
    height, width = image.shape[:2]
    scale = size / max(min(height, width), 1)
    return resize_linear(image, (max(size, round(height * scale)), max(size, round(width * scale))))


def _check(image: npt.NDArray[Any], shape: tuple[int, int]) -> None:
    if image.ndim != 3 or 0 in image.shape:
        raise InputError(f"An image has the shape (height, width, channels), all positive, not {image.shape!r}")
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"An image is resized to (height, width), both positive, not {shape!r}")


def _half_pixel(old: int, new: int) -> npt.NDArray[np.float64]:
    return np.asarray((np.arange(new) + 0.5) * (old / new) - 0.5, np.float64)


def _share_inside(position: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """How much of each interpolated value comes from inside the image: below 1 within half a pixel of the edge."""
    return np.minimum(1.0, np.minimum(position + 1.0, length - position))


def _interpolate(image: npt.NDArray[Any], positions: list[npt.NDArray[np.float64]]) -> FloatArray:
    """Interpolates along both axes, first along the one that leaves less for the other."""
    rows_first = len(positions[0]) * image.shape[1] <= image.shape[0] * len(positions[1])
    result = image
    for axis in (0, 1) if rows_first else (1, 0):
        result = _interpolate_along(result, axis, positions[axis])
    floating: FloatArray = result.astype(np.result_type(result.dtype, np.float32), copy=result is image)
    return floating


def _interpolate_along(image: npt.NDArray[Any], axis: int, position: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
    length = image.shape[axis]
    if len(position) == length and np.array_equal(position, np.arange(length)):
        return image
    dtype = np.result_type(image.dtype, np.float32)
    low = np.floor(position).astype(np.intp)
    fraction = (position - low).astype(dtype).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    result = image.take(low.clip(0, length - 1), axis).astype(dtype, copy=False)
    step = image.take((low + 1).clip(0, length - 1), axis).astype(dtype, copy=False)
    # a + f * (b - a) rather than a * (1 - f) + b * f: a constant image stays exactly constant.
    step -= result
    step *= fraction
    result += step
    return result
