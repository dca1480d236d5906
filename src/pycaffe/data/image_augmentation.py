"""What SSD's transform_param does to an image's pixels (util/im_transforms.cpp). Images are uint8 arrays (H, W, C)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import DataError, LayerError
from pycaffe.images.decode import load_cv2

__all__ = ["add_noise", "distort_image", "resize_image", "resized_extents"]

Image = npt.NDArray[Any]
WARP, FIT_SMALL_SIZE, FIT_LARGE_SIZE_AND_PAD = 1, 2, 3  # ResizeParameter.Resize_mode
INTERPOLATIONS = ("INTER_LINEAR", "INTER_AREA", "INTER_NEAREST", "INTER_CUBIC", "INTER_LANCZOS4")  # Interp_mode from 1
BORDERS = ("BORDER_CONSTANT", "BORDER_REFLECT_101", "BORDER_REPLICATE")  # Pad_mode from 1
POSTERIZE_STEP = 64


def _with_channels(image: Image, channels: int) -> Image:
    """OpenCV drops the axis of a single channel."""
    return image.reshape(*image.shape[:2], channels)


def _check_bytes(image: Image, field: str, name: str, colour: bool = False) -> None:
    if image.dtype != np.uint8 or (colour and image.shape[2] != 3):
        wanted = "eight-bit images of three channels" if colour else "eight-bit images"
        raise DataError(f"{field} needs {wanted}. {name} is {image.dtype.name} with the shape {image.shape!r}.")


# -- distort_param


def distort_image(image: Image, param: Any, generator: np.random.Generator, name: str) -> Image:
    """Changes brightness, contrast, saturation, hue and the channels' order, each by chance, as a DistortionParameter
    says; contrast comes second, or last but one, by chance.

    Raises:
        DataError: the image does not have eight bits, or for colours three channels; `name` says which.
    """
    _check_bytes(image, "distort_param", name)
    contrast_first = generator.random() > 0.5
    image = _brightness(image, param, generator)
    if contrast_first:
        image = _contrast(image, param, generator)
    image = _hue_saturation(image, param, generator, name)
    if not contrast_first:
        image = _contrast(image, param, generator)
    if generator.random() < param.random_order_prob:
        _check_bytes(image, "distort_param.random_order_prob", name, colour=True)
        image = image[..., generator.permutation(3)]
    return image


def _table(scale: float, shift: float) -> npt.NDArray[np.uint8]:
    """By value of a byte, scale * value + shift, rounded and saturated."""
    table: npt.NDArray[np.uint8] = np.clip(np.rint(np.arange(256) * scale + shift), 0, 255).astype(np.uint8)
    return table


def _brightness(image: Image, param: Any, generator: np.random.Generator) -> Image:
    if generator.random() >= param.brightness_prob:
        return image
    return _table(1, generator.uniform(-param.brightness_delta, param.brightness_delta))[image]


def _contrast(image: Image, param: Any, generator: np.random.Generator) -> Image:
    if generator.random() >= param.contrast_prob:
        return image
    return _table(generator.uniform(param.contrast_lower, param.contrast_upper), 0)[image]


def _hue_saturation(image: Image, param: Any, generator: np.random.Generator, name: str) -> Image:
    tables: dict[int, npt.NDArray[np.uint8]] = {}  # by channel of HSV
    if generator.random() < param.saturation_prob:
        tables[1] = _table(generator.uniform(param.saturation_lower, param.saturation_upper), 0)
    if generator.random() < param.hue_prob:
        tables[0] = _table(1, generator.uniform(-param.hue_delta, param.hue_delta))
    if not tables:
        return image
    _check_bytes(image, "distort_param of hue or saturation", name, colour=True)
    cv2 = load_cv2("distort_param")
    for channel, table in tables.items():
        hsv = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_BGR2HSV)
        hsv[..., channel] = table[hsv[..., channel]]
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return image


# -- resize_param


def resized_extents(param: Any, height: int, width: int) -> tuple[int, int]:
    """(height, width) of an image after `resize_image`."""
    if param.resize_mode != FIT_SMALL_SIZE:
        return param.height, param.width
    aspect, wanted = np.float32(width) / np.float32(height), np.float32(param.width) / np.float32(param.height)
    if aspect < wanted:
        return int(np.float32(param.width) / aspect), param.width
    return param.height, int(aspect * np.float32(param.height))


def resize_image(image: Image, param: Any, generator: np.random.Generator) -> Image:
    """Resizes as a ResizeParameter says: WARP to its height and width, FIT_SMALL_SIZE until both are reached,
    FIT_LARGE_SIZE_AND_PAD until one is, and pads the other side. `interp_mode` (LINEAR): one of those given, by chance.
    `prob` has no meaning, as in the fork.

    Raises:
        LayerError: more than one pad_value, but not one a channel.
    """
    cv2 = load_cv2("resize_param")
    channels = image.shape[2]
    modes = param.interp_mode
    mode = modes[int(generator.integers(len(modes)))] if modes else 1
    interpolation = getattr(cv2, INTERPOLATIONS[mode - 1])
    height, width = resized_extents(param, *image.shape[:2])
    if param.resize_mode != FIT_LARGE_SIZE_AND_PAD:
        return _with_channels(cv2.resize(image, (width, height), interpolation=interpolation), channels)
    if len(param.pad_value) not in (0, 1, channels):
        raise LayerError(f"Specify either 1 pad_value or as many as channels: {channels}. Got {len(param.pad_value)}.")
    aspect = np.float32(image.shape[1]) / np.float32(image.shape[0])
    inner = [height, width]
    if aspect > np.float32(width) / np.float32(height):
        inner[0] = max(1, int(np.float32(width) / aspect))
    else:
        inner[1] = max(1, int(aspect * np.float32(height)))
    small = _with_channels(cv2.resize(image, (inner[1], inner[0]), interpolation=interpolation), channels)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    margins = (top, height - inner[0] - top, left, width - inner[1] - left)
    value = [float(v) for v in param.pad_value] or [0.0]
    value = value * channels if len(value) == 1 else value
    padded = cv2.copyMakeBorder(small, *margins, getattr(cv2, BORDERS[param.pad_mode - 1]), value=value)
    return _with_channels(padded, channels)


# -- noise_param


def add_noise(image: Image, param: Any, generator: np.random.Generator, name: str) -> Image:
    """Applies what a NoiseParameter asks for, in this order: decolorize, gauss_blur, hist_eq, clahe, jpeg (quality),
    erode, posterize, inverse, saltpepper, convert_to_hsv, convert_to_lab. `prob` has no meaning, as in the fork.

    Raises:
        DataError: the image does not have eight bits, or for colours three channels; `name` says which.
        LayerError: saltpepper_param has not 1 value, or as many as channels.
    """
    colour = param.decolorize or param.convert_to_hsv or param.convert_to_lab
    _check_bytes(image, "noise_param", name, colour=colour)
    cv2 = load_cv2("noise_param")
    channels = image.shape[2]
    image = np.ascontiguousarray(image)
    if param.decolorize:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    if param.gauss_blur:
        image = cv2.GaussianBlur(image, (7, 7), 1.5)
    if param.hist_eq:
        image = _on_luminance(cv2, image, cv2.equalizeHist)
    if param.clahe:
        image = _on_luminance(cv2, image, cv2.createCLAHE(clipLimit=4).apply)
    if param.jpeg > 0:
        flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE
        image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(param.jpeg)])[1], flag)
    if param.erode:
        image = cv2.erode(image, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    if param.posterize:
        image = (np.arange(256) // POSTERIZE_STEP * POSTERIZE_STEP + POSTERIZE_STEP // 2).astype(np.uint8)[image]
    if param.inverse:
        image = 255 - image
    image = _with_channels(image, channels)
    if param.saltpepper:
        image = _salt_and_pepper(image, param.saltpepper_param, generator)
    if param.convert_to_hsv:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
    if param.convert_to_lab:
        image = cv2.cvtColor(image.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_BGR2LAB)
    return image


def _on_luminance(cv2: Any, image: Image, function: Any) -> Image:
    """Applies `function` to a grey image, or to the luminance of a colour image."""
    if image.shape[2] == 1:
        return _with_channels(function(image[..., 0]), 1)
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    planes[..., 0] = function(np.ascontiguousarray(planes[..., 0]))
    converted: Image = cv2.cvtColor(planes, cv2.COLOR_YCrCb2BGR)
    return converted


def _salt_and_pepper(image: Image, param: Any, generator: np.random.Generator) -> Image:
    height, width, channels = image.shape
    if len(param.value) not in (1, channels):
        raise LayerError(f"Specify either 1 pad_value or as many as channels: {channels}. Got {len(param.value)}.")
    if not 0 <= param.fraction <= 1:
        raise LayerError(f"saltpepper_param.fraction must be in 0 .. 1. Got {param.fraction!r}.")
    count = int(param.fraction * width * height)
    image = image.copy()
    values = np.array(param.value).astype(np.int64) % 256
    image[generator.integers(height, size=count), generator.integers(width, size=count)] = values
    return image
