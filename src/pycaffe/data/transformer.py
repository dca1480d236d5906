"""Scale, mirror, crop and mean subtraction: what every image reader does to its images (data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

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

    `crop_size` (0: none) cuts a square, at random in TRAIN, from the centre in TEST; `mirror` mirrors with probability
    1/2, in TEST too; the mean comes from `mean_file` (an image as large as the whole input; the crop's part of it is
    subtracted) or from `mean_value` (one, or one a channel).

    Images may be transformed on several threads. What is random about them is drawn before, by `draw`, in the order in
    which they are read, so that it does not depend on which thread is quicker.

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
        crop = self.param.crop_size
        if channels < 1:
            raise DataError(f"Check failed: datum_channels > 0. {name} has the shape {image.shape!r}.")
        if height < crop or width < crop:
            side, got = ("height", height) if height < crop else ("width", width)
            raise DataError(
                f"Check failed: datum_{side} >= crop_size ({got} vs. {crop}). {name} has the shape {image.shape!r}."
            )
        return (channels, crop, crop) if crop else (channels, height, width)

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
        mirrored = self.param.mirror and draws[0] < 0.5
        top, left = (int(self._offsets(image.shape[axis], shape[axis], draws[axis])) for axis in (1, 2))
        rows, columns = slice(top, top + shape[1]), slice(left, left + shape[2])
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

    def _crops_at_random(self) -> bool:
        return bool(self.phase == TRAIN and self.param.crop_size)

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
