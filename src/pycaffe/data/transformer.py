"""Scale, mirror, crop and mean subtraction: what every image reader does to its images (data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray, Shape
from pycaffe.data.mean import read_mean
from pycaffe.errors import DataError, LayerError
from pycaffe.rng import child_generator

__all__ = ["DataTransformer", "mean_values"]

TRAIN = 0


class DataTransformer:
    """y = (x - mean) * scale on a crop, mirrored for every second image by chance.

    `crop_size` (0: none) cuts a square, at random in TRAIN, from the centre in TEST; `mirror` mirrors with probability
    1/2, in TEST too; the mean comes from `mean_file` (an image as large as the whole input; the crop's part of it is
    subtracted) or from `mean_value` (one, or one a channel).

    Args:
        param: a TransformationParameter.
        phase: of the net.

    Raises:
        LayerError: both mean_file and mean_value are given.
        DataError: the mean file cannot be read.
    """

    def __init__(self, param: Any, phase: int) -> None:
        self.param = param
        self.phase = phase
        self.mean: FloatArray | None = None
        if param.HasField("mean_file"):
            if param.mean_value:
                raise LayerError("Cannot specify mean_file and mean_value at the same time")
            self.mean = read_mean(param.mean_file)
        self._generator = child_generator()

    def output_shape(self, image: npt.NDArray[Any], name: str) -> Shape:
        """(C, H', W') of what `transform` makes of an image (C, H, W).

        Raises:
            DataError: the image is smaller than the crop; `name` says which.
        """
        channels, height, width = image.shape
        crop = self.param.crop_size
        if channels < 1:
            raise DataError(f"Check failed: datum_channels > 0. {name} has the shape {image.shape!r}.")
        if height < crop or width < crop:
            side, got = ("height", height) if height < crop else ("width", width)
            raise DataError(
                f"Check failed: datum_{side} >= crop_size ({got} vs. {crop}). {name} has the shape {image.shape!r}."
            )
        return (channels, crop, crop) if crop else (channels, height, width)

    def transform(self, image: npt.NDArray[Any], out: FloatArray, name: str) -> None:
        """Writes the transformed image (C, H, W) into `out` (C, H', W').

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
        mirrored = self.param.mirror and self._random_below(2) == 1
        rows, columns = (self._crop(old, new) for old, new in zip(image.shape[1:], shape[1:]))
        target = out[:, :, ::-1] if mirrored else out
        if self.mean is not None:
            if self.mean.shape != image.shape:
                raise DataError(
                    f"Check failed: datum shape == data_mean_ shape. {name} has the shape {image.shape!r}, the mean "
                    f"{self.param.mean_file!r} has {self.mean.shape!r}."
                )
            np.subtract(image[:, rows, columns], self.mean[:, rows, columns], out=target, dtype=np.float32)
        elif self.param.mean_value:
            values = mean_values(self.param.mean_value, image.shape[0])
            np.subtract(image[:, rows, columns], values, out=target, dtype=np.float32)
        else:
            target[...] = image[:, rows, columns]
        if self.param.scale != 1:
            out *= np.float32(self.param.scale)

    def _crop(self, old: int, new: int) -> slice:
        if self.phase == TRAIN and self.param.crop_size:
            offset = self._random_below(old - new + 1)
        else:
            offset = (old - new) // 2
        return slice(offset, offset + new)

    def _random_below(self, limit: int) -> int:
        return int(self._generator.integers(limit))


def mean_values(values: Any, channels: int) -> FloatArray:
    """The mean_value fields as (C, 1, 1) or (1, 1, 1).

    Raises:
        LayerError: there are several, but not one a channel.
    """
    if len(values) not in (1, channels):
        raise LayerError(f"Specify either 1 mean_value or as many as channels: {channels}. Got {len(values)!r}.")
    return np.asarray(values, np.float32).reshape(-1, 1, 1)
