"""Protocol messages to arrays and back, images, and `Transformer`: what `caffe.io` is in the original.

Works with NumPy alone; `load_image` needs OpenCV, `resize_image` with an order above 1 needs SciPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe.proto import caffe_pb2
from pycaffe.errors import InputError, MissingExtra
from pycaffe.images.decode import ImageSource, decode_unchanged
from pycaffe.images.resize import resize_corners, resize_linear, resize_nearest

__all__ = [
    "Transformer",
    "array_to_blobproto",
    "array_to_datum",
    "arraylist_to_blobprotovector_str",
    "blobproto_to_array",
    "blobprotovector_str_to_arraylist",
    "datum_to_array",
    "load_image",
    "oversample",
    "resize_image",
]

Array = npt.NDArray[Any]

LUMINANCE = (0.2125, 0.7154, 0.0721)
"""Weights of red, green and blue in scikit-image's `rgb2gray`."""


def blobproto_to_array(blob: Any, return_diff: bool = False) -> Array:
    """The values of a BlobProto, or its gradients, as an array of its (old four-number or new) shape.

    Raises:
        InputError: (a ValueError) the shape does not fit the number of values.
    """
    values = np.array(blob.diff if return_diff else blob.data, dtype=np.float64)
    if not values.size:
        values = np.array(blob.double_diff if return_diff else blob.double_data, dtype=np.float64)
    if any(blob.HasField(field) for field in ("num", "channels", "height", "width")):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    else:
        shape = tuple(blob.shape.dim)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise InputError(f"BlobProto of shape {shape!r} holds {values.size} values") from error


def array_to_blobproto(arr: Array, diff: Array | None = None) -> Any:
    """A BlobProto of the array's shape and values, with `diff` (of that shape) as its gradients."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(arr.astype(float).ravel().tolist())
    if diff is not None:
        blob.diff.extend(diff.astype(float).ravel().tolist())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[Array]) -> bytes:
    """The arrays as a serialized BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector()
    vector.blobs.extend([array_to_blobproto(array) for array in arraylist])
    serialized: bytes = vector.SerializeToString()
    return serialized


def blobprotovector_str_to_arraylist(str: bytes) -> list[Array]:
    """The arrays of a serialized BlobProtoVector."""
    vector = caffe_pb2.BlobProtoVector()
    vector.ParseFromString(str)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: Array, label: int | None = None) -> Any:
    """A Datum of an array (C, H, W): its bytes for uint8, floats for any other type.

    Raises:
        InputError: (a ValueError) the array has not three dimensions.
    """
    if arr.ndim != 3:
        raise InputError(f"Incorrect array shape. Expected (channels, height, width), got {arr.shape!r}")
    datum = caffe_pb2.Datum()
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> Array:
    """The (C, H, W) array of a Datum, uint8 or float64. Its label is `datum.label`.

    Raises:
        InputError: (a ValueError) the Datum is an encoded image, or its size does not fit its shape.
    """
    if datum.encoded:
        raise InputError("Datum is an encoded image (JPEG, PNG …). Decode datum.data, for instance with pycaffe.images")
    values: Array = np.frombuffer(datum.data, np.uint8).copy() if datum.data else np.array(datum.float_data, np.float64)
    shape = (datum.channels, datum.height, datum.width)
    try:
        return values.reshape(shape)
    except ValueError as error:
        raise InputError(f"Datum of shape {shape!r} holds {values.size} values") from error


class Transformer:
    """Brings images into the form that the net's inputs take, and back.

    `preprocess` does, in this order: float32, resize to the input's (H, W), transpose, channel swap, raw scale, minus
    mean, input scale. A step that was not set is left out. `deprocess` undoes all but the resizing.

    Args:
        inputs: the shape (N, C, H, W) of each input by its name, e.g. `{"data": net.blobs["data"].data.shape}`.

    Every method raises InputError for a name that is no input.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise InputError(f"{in_} is not one of the net inputs: {list(self.inputs)}")
        return tuple(self.inputs[in_])

    def preprocess(self, in_: str, data: Array) -> Array:
        """The input (C, H, W) for blob `in_` from an image (H', W', C). `data` itself is left as it is."""
        height_width = self._shape(in_)[2:]
        result = data.astype(np.float32)
        if result.shape[:2] != height_width:
            result = resize_image(result, height_width)
        if (order := self.transpose.get(in_)) is not None:
            result = result.transpose(order)
        if (swap := self.channel_swap.get(in_)) is not None:
            result = result[list(swap), :, :]
        if (scale := self.raw_scale.get(in_)) is not None:
            result *= scale
        if (mean := self.mean.get(in_)) is not None:
            result -= mean
        if (scale := self.input_scale.get(in_)) is not None:
            result *= scale
        return result

    def deprocess(self, in_: str, data: Array) -> Array:
        """The image (H, W, C) that `preprocess` made `data`, an input (1, C, H, W) or (C, H, W), from."""
        self._shape(in_)
        order = self.transpose.get(in_)
        result: Array = data.copy().squeeze()
        if order is not None and result.ndim < len(order):
            # One channel, row or column: squeezing took more than the batch axis away, which transposing needs.
            result = result.reshape(data.shape[-len(order) :])
        if (scale := self.input_scale.get(in_)) is not None:
            result /= scale
        if (mean := self.mean.get(in_)) is not None:
            result += mean
        if (scale := self.raw_scale.get(in_)) is not None:
            result /= scale
        if (swap := self.channel_swap.get(in_)) is not None:
            result = result[np.argsort(swap), :, :]
        if order is not None:
            result = result.transpose(np.argsort(order))
        return result

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Sets the order of axes: (2, 0, 1) turns (H, W, C) into (C, H, W)."""
        if len(order) != len(self._shape(in_)) - 1:
            raise InputError(
                "Transpose order needs to have the same number of dimensions as the input. "
                f"Expected {len(self._shape(in_)) - 1} for {in_!r}, got {order!r}"
            )
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Sets the order of channels: (2, 1, 0) turns RGB into BGR. Channels are the first axis after the transpose."""
        if len(order) != self._shape(in_)[1]:
            raise InputError(
                "Channel swap needs to have the same number of dimensions as the input channels. "
                f"Expected {self._shape(in_)[1]} for {in_!r}, got {order!r}"
            )
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Sets what the image is multiplied with before the mean: 255 for nets that were trained on 0 to 255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Sets the mean: (C,), or (C, H, W) or (H, W), which is resized (linear) where it has another size.

        Raises:
            InputError: (a ValueError) the mean has another number of channels, or more than three dimensions.
        """
        shape = self._shape(in_)[1:]
        if mean.ndim == 1:
            if len(mean) != shape[0]:
                raise InputError(f"Mean channels incompatible with input. Expected {shape[0]}, got {len(mean)}")
            self.mean[in_] = mean[:, None, None]
            return
        planes = mean[None] if mean.ndim == 2 else mean
        if planes.ndim != 3:
            raise InputError(f"Mean shape invalid: {mean.shape!r}")
        if planes.shape != shape:
            low, high = planes.min(), planes.max()
            # Scaled to [0, 1] first, as the original does: the border of an enlarged mean depends on it.
            spread = (high - low) or 1
            unit = (planes - low) / spread
            mean = resize_image(unit.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1) * spread + low
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Sets what the input is multiplied with after the mean was subtracted."""
        self._shape(in_)
        self.input_scale[in_] = scale


def load_image(filename: ImageSource, color: bool = True) -> npt.NDArray[np.float32]:
    """Reads an image into float32 values of 0 to 1.

    Alpha is dropped, a palette looked up, 16 bits divided by 65535, the EXIF orientation ignored; of several pages the
    first is read (the original returns the pages of a TIFF as if they were rows).

    Args:
        filename: a path or a binary file object.
        color: three channels, a grey image repeated; else one, of luminance.

    Returns:
        (H, W, 3) in the order red, green, blue, or (H, W, 1).

    Raises:
        InputError: the file is missing, empty, truncated, damaged, or no image.
        MissingExtra: OpenCV is not installed.
    """
    pixels = decode_unchanged(filename)
    if pixels.ndim == 2:
        grey = _unit_range(pixels)[:, :, None]
        return np.tile(grey, (1, 1, 3)) if color else grey
    # Reversed before the conversion, so that the result is contiguous.
    rgb = _unit_range(pixels[:, :, 2::-1])
    return rgb if color else (rgb @ np.array(LUMINANCE))[:, :, None].astype(np.float32)


def _unit_range(pixels: Array) -> npt.NDArray[np.float32]:
    """As scikit-image's `img_as_float`: integers divided by their type's maximum, floats as they are."""
    if pixels.dtype in (np.uint8, np.uint16):
        maximum = np.iinfo(pixels.dtype).max
        return (np.arange(maximum + 1) * (1.0 / maximum)).astype(np.float32)[pixels]
    if np.issubdtype(pixels.dtype, np.integer):
        return (pixels / float(np.iinfo(pixels.dtype).max)).astype(np.float32)
    return pixels.astype(np.float32)


def resize_image(im: Array, new_dims: Sequence[int] | Array, interp_order: int = 1) -> npt.NDArray[np.float32]:
    """Resizes as the original did with the scikit-image of 2017: linear, not smoothed first.

    With one or three channels pixels have half-pixel centres, and what lies outside the image has the image's lowest
    value; with any other number of channels corners stay corners (SciPy's `zoom`), and integer images are rounded.

    Args:
        im: (H, W, C).
        new_dims: (H', W').
        interp_order: 1 is linear, 0 the nearest pixel, 2 to 5 splines (SciPy's, as today's scikit-image).

    Returns:
        (H', W', C).

    Raises:
        InputError: not three dimensions, or a size that is not positive.
        MissingExtra: `interp_order` above 1, and SciPy is not installed.
    """
    shape = (int(new_dims[0]), int(new_dims[1]))
    if im.ndim != 3 or 0 in im.shape or min(shape) < 1:
        raise InputError(
            f"Cannot resize an image of shape {im.shape!r} to {shape!r}; expected (height, width, channels)"
        )
    if im.shape[2] not in (1, 3):
        return _resize_any_channels(im, shape, interp_order)
    low, high = im.min(), im.max()
    if not high > low:
        return np.full((*shape, im.shape[2]), low, np.float32)
    if interp_order == 0:
        return resize_nearest(im, shape).astype(np.float32)
    if interp_order == 1:
        return resize_linear(im, shape, border=float(low)).astype(np.float32, copy=False)
    unit = (im.astype(np.float64) - low) / (float(high) - float(low))
    resized = _zoom(unit, shape, order=interp_order, mode="grid-constant", grid_mode=True).clip(0, 1)
    result: npt.NDArray[np.float32] = (resized * (float(high) - float(low)) + low).astype(np.float32)
    return result


def _resize_any_channels(im: Array, shape: tuple[int, int], order: int) -> npt.NDArray[np.float32]:
    if order != 1:
        return _zoom(im, shape, order=order).astype(np.float32)
    if np.issubdtype(im.dtype, np.integer):
        exact = resize_corners(im.astype(np.float64), shape)
        return np.trunc(exact + np.copysign(0.5, exact)).astype(np.float32)
    return resize_corners(im, shape).astype(np.float32, copy=False)


def _zoom(im: Array, shape: tuple[int, int], **options: Any) -> Array:
    try:
        from scipy.ndimage import zoom
    except ImportError as error:
        raise MissingExtra("resize_image with this interp_order needs SciPy. Install it: pip install scipy") from error
    factors = (shape[0] / im.shape[0], shape[1] / im.shape[1], 1)
    result: Array = zoom(im, factors, **options)
    return result


def oversample(images: Sequence[Array] | Array, crop_dims: Sequence[int] | Array) -> npt.NDArray[np.float32]:
    """Ten crops of each image: the four corners, the centre, and these five mirrored.

    Args:
        images: N arrays (H, W, C) of one shape.
        crop_dims: (H', W').

    Returns:
        (10 * N, H', W', C).

    Raises:
        InputError: a crop is larger than the images.
    """
    height, width, channels = images[0].shape
    crop_height, crop_width = int(crop_dims[0]), int(crop_dims[1])
    if crop_height > height or crop_width > width:
        raise InputError(f"Cannot take crops of {crop_height} x {crop_width} from images of {height} x {width}")
    bottom, right = height - crop_height, width - crop_width
    offsets = [(0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2)]
    crops = np.empty((len(images), 10, crop_height, crop_width, channels), np.float32)
    for image, ten in zip(images, crops):
        for index, (top, left) in enumerate(offsets):
            ten[index] = image[top : top + crop_height, left : left + crop_width]
        ten[5:] = ten[:5, :, ::-1]
    return crops.reshape(-1, crop_height, crop_width, channels)
