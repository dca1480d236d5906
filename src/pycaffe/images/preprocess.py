"""From a photograph to the (C, H, W) array that a net's data blob takes, in Caffe's own order of steps."""

from __future__ import annotations

import os
from typing import Any, Literal, Union

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError
from pycaffe.images.decode import ImageSource, decode, load_cv2

__all__ = ["ImagePreprocess", "MeanSource"]

MeanSource = Union[None, float, "tuple[float, ...]", "list[float]", npt.NDArray[Any], str, "os.PathLike[str]"]


class ImagePreprocess:
    """Decodes, resizes, crops, and gives `(x - mean) * scale`, as data_transformer.cpp does in the TEST phase.

    Args:
        mean: one value, or one a channel, in the net's channel order; or an array (C, H, W); or the path of one
            (`.npy`, `.binaryproto`); or None. An array larger than the image at that point is cropped at its centre,
            since Caffe subtracts before it crops.
        scale: multiplies after the mean is subtracted. A net that was trained on [0, 1] has 1 / 255.
        resize: (height, width), or N for N × N. The image is stretched to exactly that, as convert_imageset and
            classification.cpp do (OpenCV's linear resize on eight bits).
        crop: N, for the N × N pixels in the centre.
        channel_order: "BGR", as nearly every Caffe net was trained, or "RGB".
        grey: one channel of luminance.

    A call takes a path, the bytes of an image file, a binary file object, or an array (H, W, 3 or 1) of uint8 in the
    order blue, green, red, and gives a contiguous float32 array (C, H, W). Instances pickle and compare by value.

    Raises:
        InputError: an argument makes no sense, or (on a call) the image cannot be used.
    """

    def __init__(
        self,
        mean: MeanSource = (104, 117, 123),
        scale: float = 1.0,
        resize: int | tuple[int, int] | None = None,
        crop: int | None = None,
        channel_order: Literal["BGR", "RGB"] = "BGR",
        grey: bool = False,
    ) -> None:
        if channel_order not in ("BGR", "RGB"):
            raise InputError(f"channel_order is 'BGR' or 'RGB', not {channel_order!r}")
        if crop is not None and crop < 1:
            raise InputError(f"crop is a positive number of pixels, not {crop!r}")
        self.scale = float(scale)
        self.resize = _as_shape(resize)
        self.crop = crop
        self.channel_order = channel_order
        self.grey = bool(grey)
        self.mean = _as_mean(mean, 1 if grey else 3)

    def __call__(self, image: ImageSource | npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Array (C, H, W) for the net, of one `image`."""
        pixels = self._channels(image) if isinstance(image, np.ndarray) else decode(image, grey=self.grey)
        if self.resize is not None and pixels.shape[:2] != self.resize:
            height, width = self.resize
            pixels = load_cv2("resizing images").resize(pixels, (width, height)).reshape(height, width, -1)
        if self.crop is not None:
            pixels = _centre(pixels.transpose(2, 0, 1), (self.crop, self.crop), "the image").transpose(1, 2, 0)
        if self.channel_order == "RGB":
            pixels = pixels[:, :, ::-1]
        result = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
        if self.mean is None:
            result[...] = pixels.transpose(2, 0, 1)
        else:
            mean = self.mean
            if mean.shape[1:] != (1, 1):
                mean = _centre(mean, (pixels.shape[0], pixels.shape[1]), "the mean")
            np.subtract(pixels.transpose(2, 0, 1), mean, out=result)
        if self.scale != 1.0:
            result *= np.float32(self.scale)
        return result

    def _channels(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The array of an already decoded image with as many channels as the net takes."""
        if image.dtype != np.uint8:
            raise InputError(f"An image array holds uint8 (0 to 255, blue green red), not {image.dtype}")
        if image.ndim == 2:
            image = image[:, :, None]
        if image.ndim != 3 or image.shape[2] not in (1, 3, 4) or 0 in image.shape:
            raise InputError(f"An image array has the shape (height, width, 3 or 1), not {image.shape!r}")
        if image.shape[2] == 1:
            return image if self.grey else image.repeat(3, axis=2)
        if not self.grey:
            return image[:, :, :3]
        blue, green, red = (image[:, :, channel].astype(np.uint32) for channel in range(3))
        # OpenCV's fixed-point weights 0.114, 0.587, 0.299.
        return ((3735 * blue + 19235 * green + 9798 * red + (1 << 14)) >> 15).astype(np.uint8)[:, :, None]

    def _settings(self) -> tuple[Any, ...]:
        return (self.scale, self.resize, self.crop, self.channel_order, self.grey)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ImagePreprocess):
            return NotImplemented
        if self._settings() != other._settings() or (self.mean is None) != (other.mean is None):
            return False
        return self.mean is None or other.mean is None or np.array_equal(self.mean, other.mean)

    __hash__ = None  # type: ignore[assignment]  # it holds an array

    def __repr__(self) -> str:
        if self.mean is None:
            mean = "None"
        elif self.mean.shape[1:] == (1, 1):
            mean = repr(tuple(self.mean.ravel().tolist()))
        else:
            mean = f"<array {self.mean.shape}>"
        return (
            f"ImagePreprocess(mean={mean}, scale={self.scale!r}, resize={self.resize!r}, crop={self.crop!r}, "
            f"channel_order={self.channel_order!r}, grey={self.grey!r})"
        )


def _as_shape(resize: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if resize is None:
        return None
    height, width = (resize, resize) if isinstance(resize, (int, np.integer)) else resize
    if height < 1 or width < 1:
        raise InputError(f"resize is N or (height, width), all positive, not {resize!r}")
    return int(height), int(width)


def _as_mean(source: MeanSource, channels: int) -> npt.NDArray[np.float32] | None:
    """The mean as (C, 1, 1) or (C, H, W)."""
    if source is None:
        return None
    name = "mean"
    if isinstance(source, (str, os.PathLike)):
        name = f"mean file {os.fspath(source)!r}"
        mean = _read_mean(os.fspath(source))
    else:
        mean = np.asarray(source, np.float32)
    if mean.ndim == 4 and mean.shape[0] == 1:
        mean = mean[0]  # a binaryproto's blob is (1, C, H, W)
    if mean.ndim <= 1:
        mean = mean.reshape(-1, 1, 1)
        if len(mean) not in (1, channels):
            raise InputError(
                f"Specify either 1 mean_value or as many as channels: {channels}. The {name} has {len(mean)}"
            )
    elif mean.ndim == 2:
        mean = mean[None]
    if mean.ndim != 3 or mean.shape[0] not in (1, channels) or mean.size == 0:
        raise InputError(f"The {name} has shape {mean.shape!r}; expected ({channels},) or ({channels}, height, width)")
    return np.ascontiguousarray(mean, np.float32)


def _read_mean(path: str) -> npt.NDArray[np.float32]:
    if path.endswith(".npy"):
        try:
            return np.asarray(np.load(path, allow_pickle=False), np.float32)
        except (OSError, ValueError) as error:
            raise InputError(f"Could not read the mean file {path!r}: {error}") from error
    if not os.path.isfile(path):
        raise InputError(f"Could not open or find file {path!r}, the mean; expected a .npy or .binaryproto file")
    from pycaffe.proto.caffemodel import read_blob

    return np.asarray(read_blob(path), np.float32)


def _centre(planes: npt.NDArray[Any], shape: tuple[int, int], what: str) -> npt.NDArray[Any]:
    """The (C, *shape) in the middle of (C, H, W); an odd rest leaves the larger part at the end, as in Caffe."""
    top, left = (planes.shape[1] - shape[0]) // 2, (planes.shape[2] - shape[1]) // 2
    if top < 0 or left < 0:
        raise InputError(
            f"Cannot take {shape[0]} x {shape[1]} pixels from {what} of {planes.shape[1]} x {planes.shape[2]}. "
            "Resize to at least that size"
        )
    return planes[:, top : top + shape[0], left : left + shape[1]]
