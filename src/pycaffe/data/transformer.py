"""Scale, mirror, crop and mean subtraction: what every image reader does to its images (data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from pycaffe.blob import FloatArray, Shape
from pycaffe.data.mean import read_mean
from pycaffe.errors import DataError, LayerError
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["DataTransformer", "Draws", "mean_values"]

TRAIN = 0

Draws = npt.NDArray[np.float64]
"""Random numbers in [0, 1) for an image: whether it is mirrored, the row and the column of its crop."""


class DataTransformer:
    """y = (x - mean) * scale on a crop, mirrored for every second image by chance.

    `crop_size` (0: none) cuts a square, or `crop_h` and `crop_w` (SSD's; both) a rectangle, at random in TRAIN, from
    the centre in TEST; `mirror` mirrors with probability 1/2, in TEST too; the mean comes from `mean_file` (an image as
    large as the whole input; the crop's part of it is subtracted) or from `mean_value` (one, or one a channel).

    Images may be transformed on several threads. What is random about them is drawn before, by `draw`, in the order in
    which they are read, so that it does not depend on which thread is quicker.

    Args:
        param: a TransformationParameter.
        phase: of the net.

    Raises:
        LayerError: both mean_file and mean_value are given, or one of crop_h and crop_w without the other.
        DataError: the mean file cannot be read.
    """

    def __init__(self, param: Any, phase: int) -> None:
        self.param = param
        self.phase = phase
        size = param.crop_size
        self.crop = (size or param.crop_h, size or param.crop_w)  # both 0: none
        if (self.crop[0] == 0) != (self.crop[1] == 0):
            raise LayerError(f"crop_h and crop_w are needed both, or none of them. Got {self.crop!r}.")
        self.mean: FloatArray | None = None
        if param.HasField("mean_file"):
            if param.mean_value:
                raise LayerError("Cannot specify mean_file and mean_value at the same time")
            self.mean = read_mean(param.mean_file)
        self._generator = child_generator()

    def draw(self, count: int) -> Draws:
        """What `count` images need of chance: (count, 3)."""
        if self.param.mirror or self._crops_at_random():
            return self._generator.random((count, 3))
        return np.zeros((count, 3))

    def state(self) -> Any:
        """Where the sequence of draws is, as a JSON-able value."""
        return self._generator.bit_generator.state

    def restore(self, state: Any) -> None:
        """Goes on with the draws that followed `state`.

        Raises:
            KeyError, TypeError, ValueError: this is no such state.
        """
        self._generator = generator_in_state(state)

    def output_shape(self, image: npt.NDArray[Any], name: str) -> Shape:
        """(C, H', W') of what `transform` makes of an image (C, H, W).

        Raises:
            DataError: the image is smaller than the crop; `name` says which.
        """
        channels, height, width = image.shape
        crop = self.crop
        if channels < 1:
            raise DataError(f"Check failed: datum_channels > 0. {name} has the shape {image.shape!r}.")
        for side, got, wanted in (("height", height, crop[0]), ("width", width, crop[1])):
            if got < wanted:
                raise DataError(
                    f"Check failed: datum_{side} >= crop_size ({got} vs. {wanted}). {name} has the shape "
                    f"{image.shape!r}."
                )
        return (channels, *crop) if crop[0] else (channels, height, width)

    def placement(self, shape: Shape, draws: Draws) -> tuple[int, int, bool]:
        """Where the crop of an image (C, H, W) begins, row and column, and whether it is mirrored."""
        size = self.crop if self.crop[0] else shape[1:]
        top, left = (int(self._offsets(shape[axis], size[axis - 1], draws[axis])) for axis in (1, 2))
        return top, left, bool(self._mirrors(draws[0]))

    def transform(self, image: npt.NDArray[Any], out: FloatArray, name: str, draws: Draws) -> None:
        """Writes the transformed image (C, H, W) into `out` (C, H', W'); `draws` is a row of what `draw` gave.

        Raises:
            DataError: the image does not fit `out`, the crop or the mean image.
            LayerError: more than one mean_value, but not one a channel.
        """
        shape = self.output_shape(image, name)
        if shape != out.shape:
            raise DataError(
                f"{name} has the shape {shape!r} after cropping, the batch has {out.shape!r}: all images of a batch "
                "must have one size. Set crop_size, resize them, or set batch_size: 1."
            )
        top, left, mirrored = self.placement(image.shape, draws)
        rows, columns = slice(top, top + shape[1]), slice(left, left + shape[2])
        step = -1 if mirrored else 1
        # First the few bytes are put in order: the wider numbers are then worked on from end to end.
        out[...] = np.ascontiguousarray(image[:, rows, columns][:, :, ::step])
        mean = self._mean_of(image.shape, name)
        if mean is not None:
            out -= mean[:, rows, columns][:, :, ::step] if self.mean is not None else mean
        if self.param.scale != 1:
            out *= np.float32(self.param.scale)

    def transform_alike(self, images: npt.NDArray[Any], out: FloatArray, name: str, draws: Draws) -> None:
        """`transform` of images of one shape, (N, C, H, W) into (N, C, H', W'): quicker where they are small."""
        count, size, old = len(images), out.shape[2:], images.shape[2:]
        mean = self._mean_of(images.shape[1:], name)
        if self._crops_at_random():
            tops, lefts = (self._offsets(old[axis], size[axis], draws[:, 1 + axis]) for axis in (0, 1))
            out[...] = sliding_window_view(images, size, (2, 3))[np.arange(count), :, tops, lefts]
            if self.mean is not None:
                mean = sliding_window_view(self.mean, size, (1, 2))[:, tops, lefts].swapaxes(0, 1)
        else:
            top, left = (self._offsets(old[axis], size[axis], None) for axis in (0, 1))
            rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
            out[...] = images[:, :, rows, columns]
            if self.mean is not None:
                mean = self.mean[:, rows, columns]
        if mean is not None:
            out -= mean
        if self.param.scale != 1:
            out *= np.float32(self.param.scale)
        mirrored = self._mirrors(draws[:, 0])
        if np.any(mirrored):
            out[mirrored] = out[mirrored][..., ::-1]

    def _mean_of(self, shape: Shape, name: str) -> FloatArray | None:
        """What is to be subtracted: an image of that shape, or a value or one a channel as (C or 1, 1, 1)."""
        if self.mean is not None and self.mean.shape != shape:
            raise DataError(
                f"Check failed: datum shape == data_mean_ shape. {name} has the shape {shape!r}, the mean "
                f"{self.param.mean_file!r} has {self.mean.shape!r}."
            )
        return mean_values(self.param.mean_value, shape[0]) if self.param.mean_value else self.mean

    def _mirrors(self, draws: Any) -> Any:
        return np.logical_and(self.param.mirror, draws < 0.5)

    def _crops_at_random(self) -> bool:
        return bool(self.phase == TRAIN and self.crop[0])

    def _offsets(self, old: int, new: int, draws: Any) -> Any:
        """Where the crop begins along an axis: at random in TRAIN, in the middle in TEST."""
        return np.multiply(draws, old - new + 1).astype(np.intp) if self._crops_at_random() else (old - new) // 2


def mean_values(values: Any, channels: int) -> FloatArray:
    """The mean_value fields as (C, 1, 1) or (1, 1, 1).

    Raises:
        LayerError: there are several, but not one a channel.
    """
    if len(values) not in (1, channels):
        raise LayerError(f"Specify either 1 mean_value or as many as channels: {channels}. Got {len(values)!r}.")
    return np.asarray(values, np.float32).reshape(-1, 1, 1)
