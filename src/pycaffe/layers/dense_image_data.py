"""DenseImageData: images, and for each one an image of the labels of its pixels (SegNet)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Shape
from pycaffe.data.datum import image_to_planes
from pycaffe.data.image_list import read_lines
from pycaffe.data.list_walk import ListWalk
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.data.transformer import DataTransformer
from pycaffe.errors import DataError, InputError
from pycaffe.images.decode import decode, load_cv2
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["DenseImageDataLayer"]

Pixels = npt.NDArray[Any]


@register_layer("DenseImageData")
class DenseImageDataLayer(PrefetchingLayer):
    """Reads pairs of image files that a text file lists as `image labels`, over and over.

    top[0]: (N, C, H, W) with N = `batch_size`; C is 3 (BGR), or 1 without `is_color`; H and W are `crop_height` and
        `crop_width`, else `new_height` and `new_width`, else the image's own.
    top[1]: (N, 1, H, W), the grey values of the label image as they are.

    dense_image_data_param: `source`, `root_folder` (put before each path as it is), `batch_size`, `new_height` and
    `new_width` (0: as it is; images are interpolated linearly, labels take the nearest), `crop_height` and `crop_width`
    (0: none; at a random place, in both phases), `mirror` (false; by chance 1/2), `is_color` (true), `shuffle` (false;
    anew each time through the list), `rand_skip` (0). transform_param: scale and mean, of the image only; its crop_size
    and mirror would part image and labels, and are refused. data_param: `prefetch` (4).

    Raises (at set-up and in forward):
        DataError: the list is missing or empty; an image cannot be read, or differs from its labels, or after cropping
            from the first of its batch, in size.
        LayerError: one of two sizes without the other; a parameter that is refused; rand_skip went past the list's end.

    As dense_image_data_layer.cpp of SegNet.
    """

    exact_num_top_blobs = 2
    origin = "SegNet"
    checked_by = "SegNet's fork"

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        param, transform = self.layer_param.dense_image_data_param, self.layer_param.transform_param
        for kind in ("new", "crop"):
            sides = getattr(param, f"{kind}_height"), getattr(param, f"{kind}_width")
            if (sides[0] > 0) != (sides[1] > 0):
                raise self.error(
                    f"Current implementation requires {kind}_height and {kind}_width to be set at the same time. "
                    f"Got {sides!r}."
                )
        if transform.mirror or transform.crop_size:
            raise self.error(
                "Any stochastic transformation will break layer: transform_param's mirror and crop_size would move the "
                "image and not its labels. Use those of dense_image_data_param."
            )
        self.check_batch_size(param.batch_size)
        source = _Pairs(param, DataTransformer(transform, self.phase))
        return source, source.shapes()


class _Pairs(BatchSource):
    """Batches of images and label images."""

    def __init__(self, param: Any, transformer: DataTransformer) -> None:
        self.param = param
        self.transformer = transformer
        self._pairs = ListWalk(_read_pairs(param.source), param.shuffle)
        self._generator = child_generator()
        if param.rand_skip:
            self._pairs.skip(param.rand_skip, self._generator)

    def shapes(self) -> list[Shape]:
        image, labels = self._load(self._pairs.peek(), np.zeros(3))
        return [(self.param.batch_size, *image.shape), (self.param.batch_size, *labels.shape)]

    def plan(self) -> list[tuple[tuple[str, str], Any]]:
        return [(self._pairs.next(), draws) for draws in self._generator.random((self.param.batch_size, 3))]

    def make(self, plan: list[tuple[tuple[str, str], Any]]) -> Batch:
        loaded = [self._load(pair, draws) for pair, draws in plan]
        data = np.empty((len(plan), *loaded[0][0].shape), np.float32)
        labels = np.empty((len(plan), *loaded[0][1].shape), np.float32)
        no_chance = self.transformer.draw(len(plan))
        for item, (image, label) in enumerate(loaded):
            self.transformer.transform(image, data[item], f"Image {plan[item][0][0]!r}", no_chance[item])
            labels[item] = label
        return [data, labels]

    def _load(self, pair: tuple[str, str], draws: Any) -> tuple[Pixels, Pixels]:
        """The image (C, H, W) and its labels (1, H, W), resized, mirrored and cropped alike."""
        image = self._read(pair[0], grey=not self.param.is_color, nearest=False)
        labels = self._read(pair[1], grey=True, nearest=True)
        if image.shape[1:] != labels.shape[1:]:
            raise DataError(
                "Input and label image heights and widths must match. "
                f"{pair[0]!r} has {image.shape[1:]!r}, {pair[1]!r} has {labels.shape[1:]!r}."
            )
        if self.param.mirror and draws[0] < 0.5:
            image, labels = image[:, :, ::-1], labels[:, :, ::-1]
        crop = (self.param.crop_height, self.param.crop_width)
        if crop == (0, 0):
            return image, labels
        room = [old - new + 1 for old, new in zip(image.shape[1:], crop)]
        if min(room) < 1:
            raise DataError(f"Image {pair[0]!r} of {image.shape[1:]!r} is smaller than the crop {crop!r}.")
        top, left = (int(draw * count) for draw, count in zip(draws[1:], room))
        rows, columns = slice(top, top + crop[0]), slice(left, left + crop[1])
        return image[:, rows, columns], labels[:, rows, columns]

    def _read(self, path: str, grey: bool, nearest: bool) -> Pixels:
        try:
            image = decode(self.param.root_folder + path, grey=grey)
        except InputError as error:
            raise DataError(f"Could not load {path}. It is listed in {self.param.source!r}. {error}.") from error
        if self.param.new_height:
            cv2 = load_cv2("DenseImageData's new_height and new_width")
            shape = (self.param.new_height, self.param.new_width, image.shape[2])
            how = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
            image = cv2.resize(image, (shape[1], shape[0]), interpolation=how).reshape(shape)
        return image_to_planes(image, f"Image {path!r} of {self.param.source!r}")

    def state(self) -> dict[str, Any]:
        return {**self._pairs.state(), "generator": self._generator.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self._pairs.restore(state)
        self._generator = generator_in_state(state["generator"])


def _read_pairs(path: str) -> list[tuple[str, str]]:
    """The names in a list, two by two; they are parted by white space, so none may hold any."""
    words = " ".join(read_lines(path, "File is empty: could not open the image list")).split()
    if not words:
        raise DataError(f"File is empty: the image list {path!r} names no image.")
    if len(words) % 2:
        raise DataError(f"The image list {path!r} names {len(words)} files. Expected pairs: an image and its labels.")
    return list(zip(words[::2], words[1::2]))
