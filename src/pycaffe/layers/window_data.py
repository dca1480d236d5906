"""WindowData: windows of images, sampled as R-CNN does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pycaffe.blob import Blob, FloatArray
from pycaffe.data.mean import read_mean
from pycaffe.data.transformer import mean_values
from pycaffe.data.window_file import Window, read_window_file
from pycaffe.errors import DataError, InputError
from pycaffe.images.decode import decode, load_cv2, read_source
from pycaffe.layers._reader import ReaderLayer
from pycaffe.layers._registry import register_layer
from pycaffe.rng import child_generator

__all__ = ["WindowDataLayer"]


class _Region(NamedTuple):
    """A clipped region of an image (corners included), the size it is warped to, and the padding around that."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    left: int
    right: int
    top: int


@register_layer("WindowData")
class WindowDataLayer(ReaderLayer):
    """Samples windows of images: first N - F background windows, then F = floor(N * `fg_fraction`) foreground ones.

    top[0]: (N, C, crop_size, crop_size), BGR: each window warped to the crop with linear interpolation,
        (pixel - mean) * `window_data_param.scale`; zero where the window with its context leaves the image.
    top[1]: labels (N,), 0 for background.

    window_data_param: `source` (see data/window_file.py), `batch_size`, `fg_threshold` (0.5), `bg_threshold` (0.5),
    `fg_fraction` (0.25), `context_pad` (0; so many pixels of context on each side after warping), `crop_mode` (`warp`,
    or `square`: the tightest square around the window), `cache_images` (false), `root_folder`, `scale` (1).
    transform_param: `crop_size` (needed), `mirror`, `mean_file` (its centre is subtracted) or `mean_value`; its scale
    is ignored, as in the original.

    Raises (at set-up and in forward):
        LayerError: crop_size or batch_size is not positive, context_pad leaves nothing of the crop, or the means do not
            fit.
        DataError: the window file or an image cannot be read, there are no foreground or no background windows, or a
            window leaves its image where there is no context.
        MissingExtra: OpenCV is not installed.

    As window_data_layer.cpp on the CPU.
    """

    exact_num_top_blobs = 2
    checked_by = "NumPy loop"

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.num_top = len(top)
        param, transform = self.layer_param.window_data_param, self.layer_param.transform_param
        self.crop_size = transform.crop_size
        if self.crop_size <= 0:
            raise self.error(f"Check failed: crop_size > 0 ({self.crop_size} vs. 0). Set crop_size in transform_param.")
        if 2 * param.context_pad >= self.crop_size:
            raise self.error(
                f"context_pad {param.context_pad!r} on both sides leaves nothing of crop_size {self.crop_size!r}."
            )
        self.batch_size = self.check_batch_size(param.batch_size)
        self._windows = read_window_file(param.source, param.fg_threshold, param.bg_threshold)
        for name, windows in (("fg", self._windows.foreground), ("bg", self._windows.background)):
            if not windows:
                raise DataError(f"Check failed: {name}_windows_.size() > 0. {param.source!r} has none.")
        self._mean = self._read_mean()
        self._cache: dict[str, bytes] = {}
        if param.cache_images:
            self._cache = {name: self._read_file(name) for name in self._windows.images}
        self._generator = child_generator()
        top[0].reshape(self.batch_size, self._windows.channels, self.crop_size, self.crop_size)
        top[1].reshape(self.batch_size)

    def _read_mean(self) -> FloatArray:
        """The mean as (C or 1, crop_size or 1, crop_size or 1)."""
        transform, size = self.layer_param.transform_param, self.crop_size
        if not transform.HasField("mean_file"):
            return mean_values(transform.mean_value or [0.0], self._windows.channels)
        if transform.mean_value:
            raise self.error("Cannot specify mean_file and mean_value at the same time")
        mean = read_mean(transform.mean_file)
        offset = (mean.shape[2] - size) // 2  # from the width, for both axes
        centre = mean[:, max(offset, 0) : offset + size, max(offset, 0) : offset + size]
        if centre.shape != (self._windows.channels, size, size):
            raise self.error(
                f"The mean {transform.mean_file!r} of shape {mean.shape!r} has no centre of "
                f"{(self._windows.channels, size, size)!r}."
            )
        return centre

    def _read_file(self, name: str) -> bytes:
        try:
            return read_source(self.layer_param.window_data_param.root_folder + name)[0]
        except InputError as error:
            raise DataError(f"Could not open or find file {name}. {error}") from error

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        data, labels = top[0].raw_data(), top[1].raw_data()
        data[...] = 0
        foreground = int(np.float32(self.batch_size) * np.float32(self.layer_param.window_data_param.fg_fraction))
        for item in range(self.batch_size):
            is_foreground = item >= self.batch_size - foreground
            windows = self._windows.foreground if is_foreground else self._windows.background
            window = windows[int(self._generator.integers(len(windows)))]
            mirror = self.layer_param.transform_param.mirror and bool(self._generator.integers(2))
            self._copy_window(window, mirror, data[item])
            labels[item] = window.label

    def _copy_window(self, window: Window, mirror: bool, out: FloatArray) -> None:
        cv2 = load_cv2("WindowData")
        name = self._windows.images[window.image]
        try:
            image = decode(self._cache[name] if name in self._cache else self._read_file(name))
        except InputError as error:
            raise DataError(f"Could not open or find file {name}. {error}") from error
        if image.shape[2] != len(out):
            raise DataError(f"Image {name!r} has {image.shape[2]!r} channels, the window file says {len(out)!r}.")
        region = self._region(window, image.shape[0], image.shape[1])
        inside = 0 <= region.x1 <= region.x2 < image.shape[1] and 0 <= region.y1 <= region.y2 < image.shape[0]
        if not inside or region.width < 1 or region.height < 1:
            raise DataError(f"{window!r} leaves nothing inside image {name!r} of {image.shape[:2]!r} (height, width).")
        part = image[region.y1 : region.y2 + 1, region.x1 : region.x2 + 1]
        part = cv2.resize(part, (region.width, region.height), interpolation=cv2.INTER_LINEAR)
        if mirror:
            part = part[:, ::-1]
        left = region.right if mirror else region.left  # the padding is mirrored too
        rows, columns = slice(region.top, region.top + part.shape[0]), slice(left, left + part.shape[1])
        mean = np.broadcast_to(self._mean, out.shape)[:, rows, columns]
        scale = np.float32(self.layer_param.window_data_param.scale)
        out[:, rows, columns] = (part.transpose(2, 0, 1) - mean) * scale

    def _region(self, window: Window, image_height: int, image_width: int) -> _Region:
        """Where a window lies once its context is added; in float32, rounded as C's round does, like the original."""
        crop, (x1, y1, x2, y2) = self.crop_size, window[2:]
        param = self.layer_param.window_data_param
        square = param.crop_mode == "square"
        if not param.context_pad and not square:
            return _Region(x1, y1, x2, y2, crop, crop, 0, 0, 0)
        single = np.float32
        context = single(crop) / single(crop - 2 * param.context_pad)
        half_width, half_height = single(x2 - x1 + 1) / single(2), single(y2 - y1 + 1) / single(2)
        centre_x, centre_y = single(x1) + half_width, single(y1) + half_height
        if square:
            half_width = half_height = max(half_width, half_height)
        x1, x2 = _round(centre_x - half_width * context), _round(centre_x + half_width * context)
        y1, y2 = _round(centre_y - half_height * context), _round(centre_y + half_height * context)
        scale_x, scale_y = single(crop) / single(x2 - x1 + 1), single(crop) / single(y2 - y1 + 1)
        # How far the region leaves the image, on each side; clipped away, and padded once it is warped.
        left, above = max(0, -x1), max(0, -y1)
        right, below = max(0, x2 - image_width + 1), max(0, y2 - image_height + 1)
        x1, y1, x2, y2 = x1 + left, y1 + above, x2 - right, y2 - below
        width, height = _round(single(x2 - x1 + 1) * scale_x), _round(single(y2 - y1 + 1) * scale_y)
        left, right, above = (
            _round(single(left) * scale_x),
            _round(single(right) * scale_x),
            _round(single(above) * scale_y),
        )
        return _Region(x1, y1, x2, y2, width, min(height, crop - above), left, right, above)


def _round(value: np.float32) -> int:
    """To the nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(float(value)) + 0.5), value))
