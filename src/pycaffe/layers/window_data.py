"""WindowData: windows of images, sampled as R-CNN does."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.data.mean import read_mean
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.data.transformer import mean_values
from pycaffe.data.window_file import Window, WindowFile, read_window_file
from pycaffe.data.window_region import window_region
from pycaffe.errors import DataError, InputError, LayerError
from pycaffe.images.decode import decode, load_cv2, read_source
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["WindowDataLayer"]


@register_layer("WindowData")
class WindowDataLayer(PrefetchingLayer):
    """Samples windows of images: first N - F background windows, then F = floor(N * `fg_fraction`) foreground ones.

    top[0]: (N, C, crop_size, crop_size), BGR: each window warped to the crop with linear interpolation,
        (pixel - mean) * `window_data_param.scale`; zero where the window with its context leaves the image.
    top[1]: labels (N,), 0 for background.

    window_data_param: `source` (see data/window_file.py), `batch_size`, `fg_threshold` (0.5), `bg_threshold` (0.5),
    `fg_fraction` (0.25), `context_pad` (0; so many pixels of context on each side after warping), `crop_mode` (`warp`,
    or `square`: the tightest square around the window), `cache_images` (false), `root_folder`, `scale` (1).
    data_param: `prefetch` (4: so many batches are read ahead).
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

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        param, transform = self.layer_param.window_data_param, self.layer_param.transform_param
        crop = transform.crop_size
        if crop <= 0:
            raise self.error(f"Check failed: crop_size > 0 ({crop} vs. 0). Set crop_size in transform_param.")
        if 2 * param.context_pad >= crop:
            raise self.error(f"context_pad {param.context_pad!r} on both sides leaves nothing of crop_size {crop!r}.")
        self.check_batch_size(param.batch_size)
        windows = read_window_file(param.source, param.fg_threshold, param.bg_threshold)
        for name, of_kind in (("fg", windows.foreground), ("bg", windows.background)):
            if not of_kind:
                raise DataError(f"Check failed: {name}_windows_.size() > 0. {param.source!r} has none.")
        source = _WindowBatches(param, transform, windows)
        return source, [(param.batch_size, windows.channels, crop, crop), (param.batch_size,)]


class _WindowBatches(BatchSource):
    """Batches of sampled windows."""

    def __init__(self, param: Any, transform: Any, windows: WindowFile) -> None:
        self.param = param
        self.crop: int = transform.crop_size
        self.mirror: bool = transform.mirror
        self.windows = windows
        self._mean = _read_mean(transform, windows.channels)
        self._cache: dict[str, bytes] = {}
        if param.cache_images:
            self._cache = {name: self._read_file(name) for name in windows.images}
        self._generator = child_generator()

    def plan(self) -> list[tuple[Window, bool]]:
        count = self.param.batch_size
        foreground = int(np.float32(count) * np.float32(self.param.fg_fraction))
        kinds = [self.windows.background] * (count - foreground) + [self.windows.foreground] * foreground
        draws = self._generator.random((count, 2))
        return [
            (windows[int(which * len(windows))], self.mirror and bool(mirrored < 0.5))
            for windows, (which, mirrored) in zip(kinds, draws)
        ]

    def make(self, plan: list[tuple[Window, bool]]) -> Batch:
        data = np.zeros((len(plan), self.windows.channels, self.crop, self.crop), np.float32)
        for (window, mirror), out in zip(plan, data):
            self._copy_window(window, mirror, out)
        return [data, np.array([window.label for window, _ in plan], np.float32)]

    def state(self) -> dict[str, Any]:
        return {"generator": self._generator.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self._generator = generator_in_state(state["generator"])

    def _read_file(self, name: str) -> bytes:
        try:
            return read_source(self.param.root_folder + name)[0]
        except InputError as error:
            raise DataError(f"Could not open or find file {name}. {error}.") from error

    def _copy_window(self, window: Window, mirror: bool, out: FloatArray) -> None:
        cv2 = load_cv2("WindowData")
        name = self.windows.images[window.image]
        try:
            image = decode(self._cache[name] if name in self._cache else self._read_file(name))
        except InputError as error:
            raise DataError(f"Could not open or find file {name}. {error}.") from error
        if image.shape[2] != len(out):
            raise DataError(f"Image {name!r} has {image.shape[2]!r} channels, the window file says {len(out)!r}.")
        height, width = image.shape[:2]
        square = self.param.crop_mode == "square"
        region = window_region(window, height, width, self.crop, self.param.context_pad, square)
        inside = 0 <= region.x1 <= region.x2 < width and 0 <= region.y1 <= region.y2 < height
        if not inside or region.width < 1 or region.height < 1:
            raise DataError(f"{window!r} leaves nothing inside image {name!r} of {image.shape[:2]!r} (height, width).")
        part = image[region.y1 : region.y2 + 1, region.x1 : region.x2 + 1]
        part = cv2.resize(part, (region.width, region.height), interpolation=cv2.INTER_LINEAR)
        if mirror:
            part = part[:, ::-1]
        left = region.right if mirror else region.left  # the padding is mirrored too
        rows, columns = slice(region.top, region.top + part.shape[0]), slice(left, left + part.shape[1])
        mean = np.broadcast_to(self._mean, out.shape)[:, rows, columns]
        out[:, rows, columns] = (part.transpose(2, 0, 1) - mean) * np.float32(self.param.scale)


def _read_mean(transform: Any, channels: int) -> FloatArray:
    """The mean as (C or 1, crop_size or 1, crop_size or 1)."""
    if not transform.HasField("mean_file"):
        return mean_values(transform.mean_value or [0.0], channels)
    if transform.mean_value:
        raise LayerError("Cannot specify mean_file and mean_value at the same time")
    mean = read_mean(transform.mean_file)
    size = transform.crop_size
    offset = (mean.shape[2] - size) // 2  # from the width, for both axes
    centre = mean[:, max(offset, 0) : offset + size, max(offset, 0) : offset + size]
    if centre.shape != (channels, size, size):
        raise LayerError(
            f"The mean {transform.mean_file!r} of shape {mean.shape!r} has no centre of {(channels, size, size)!r}."
        )
    return centre
