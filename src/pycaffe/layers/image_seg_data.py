"""ImageSegData: images, and for each one an image of the labels of its pixels (DeepLab)."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray, Shape
from pycaffe.data.image_list import read_lines
from pycaffe.data.list_walk import ListWalk
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.data.transformer import DataTransformer, mean_values
from pycaffe.errors import DataError, InputError
from pycaffe.images.decode import decode, load_cv2
from pycaffe.layers._base import TRAIN
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["ImageSegDataLayer"]

NONE, IMAGE, PIXEL = range(3)  # ImageDataParameter.LabelType
Pixels = npt.NDArray[Any]


@register_layer("ImageSegData")
class ImageSegDataLayer(PrefetchingLayer):
    """Reads the images that a text file lists with their labels, over and over; crops that overhang are filled up.

    top[0]: (N, C, H, W) with N = `batch_size`; C is 3 (BGR), or 1 without `is_color`; H and W are the crop, else
        `new_height` and `new_width`, else the image's own.
    top[1]: (N, 1, H, W), the labels.
    top[2], if asked for: (N, 1, 1, 2), height and width of each image, at most H and W; without scale_factors they say
        which part is not filling.

    image_data_param: `source`, `root_folder`, `batch_size` (1), `new_height` and `new_width` (0: as it is; linear, of
    labels, too, as in the fork), `is_color` (true), `shuffle` (false), `rand_skip` (0). `label_type`: PIXEL, lines of
    `image labels`, two files; IMAGE (the default), `image number`, which all pixels get; NONE, `image`, and all get
    `ignore_label` (255).

    transform_param: `scale_factors`, one of which is taken by chance (labels take the nearest); `crop_size` (or crop_h
    and crop_w), at random in TRAIN and from the middle in TEST, after the image has been filled up with mean_value, and
    its labels with ignore_label, below and at the right; `mirror`, by chance 1/2 in both phases; `mean_value`; `scale`.
    data_param: `prefetch` (4).

    Raises (at set-up and in forward):
        DataError: the list is missing or empty; an image cannot be read, or differs from its labels, or without a crop
            from the first of its batch, in size.
        LayerError: a mean_file; one of two sizes without the other; scale_factors without a crop.

    As image_seg_data_layer.cpp and data_transformer.cpp of DeepLab, versions 1 and 2.
    """

    min_top_blobs = 2
    max_top_blobs = 3
    origin = "DeepLab"
    checked_by = "NumPy loop"

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        param, transform = self.layer_param.image_data_param, self.layer_param.transform_param
        if transform.HasField("mean_file"):
            raise self.error("ImageSegDataLayer does not support mean file. Give mean_value, once or once a channel.")
        if (param.new_height > 0) != (param.new_width > 0):
            got = (param.new_height, param.new_width)
            raise self.error(f"ImageSegData requires new_height and new_width to be set at the same time. Got {got!r}.")
        transformer = DataTransformer(transform, self.phase)
        if transform.scale_factors and not (transformer.crop[0] and all(s > 0 for s in transform.scale_factors)):
            raise self.error(f"scale_factors need a crop_size, and are positive. Got {[*transform.scale_factors]!r}.")
        self.check_batch_size(param.batch_size)
        source = _LabelledImages(param, transform, transformer.crop, self.phase)
        return source, [(param.batch_size, *array.shape[1:]) for array in source.make([source.peek()])]


class _LabelledImages(BatchSource):
    """Batches of images, labels and sizes."""

    def __init__(self, param: Any, transform: Any, crop: tuple[int, int], phase: int) -> None:
        self.param, self.transform, self.crop, self.phase = param, transform, crop, phase
        self._lines = ListWalk(_read_lines(param.source, param.label_type), param.shuffle)
        self._generator = child_generator()
        if param.rand_skip:
            self._lines.skip(param.rand_skip, self._generator)

    def peek(self) -> tuple[tuple[str, str], Pixels]:
        """The next line, with draws for a first look at its shape."""
        return self._lines.peek(), np.zeros(4)

    def plan(self) -> list[tuple[tuple[str, str], Pixels]]:
        return [(self._lines.next(), draws) for draws in self._generator.random((self.param.batch_size, 4))]

    def make(self, plan: list[tuple[tuple[str, str], Pixels]]) -> Batch:
        found = [self._load(line, draws) for line, draws in plan]
        if len(shapes := {image.shape for image, _, _ in found}) > 1:
            raise DataError(f"All images of a batch must have one size; set crop_size. Got {sorted(shapes)!r}.")
        return [np.stack(arrays) for arrays in zip(*found)]

    def _load(self, line: tuple[str, str], draws: Pixels) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The image (C, H, W), its labels (1, H, W) and its size (1, 1, 2)."""
        image = self._read(line[0], grey=not self.param.is_color)
        labels = self._labels(line[1], image.shape)
        if image.shape[:2] != labels.shape[:2]:
            sizes = f"{line[0]!r} has {image.shape[:2]!r}, {line[1]!r} has {labels.shape[:2]!r}."
            raise DataError(f"Check failed: img_height == seg_height, and so the widths. {sizes}")
        size = np.minimum(image.shape[:2], self.crop if self.crop[0] else image.shape[:2])
        image, labels = self._scaled(image, labels, draws[0])
        mean = np.zeros((1, 1, 1), np.float32)
        if self.transform.mean_value:
            mean = mean_values(self.transform.mean_value, image.shape[2])
        planes = (image.transpose(2, 0, 1).astype(np.float32) - mean) * np.float32(self.transform.scale)
        classes = labels.transpose(2, 0, 1).astype(np.float32)
        planes, classes = self._cropped(planes, 0, draws), self._cropped(classes, self.param.ignore_label, draws)
        step = -1 if self.transform.mirror and draws[3] < 0.5 else 1
        return planes[:, :, ::step], classes[:, :, ::step], size.astype(np.float32).reshape(1, 1, 2)

    def _read(self, path: str, grey: bool) -> Pixels:
        try:
            image = decode(self.param.root_folder + path, grey=grey)
        except InputError as error:
            raise DataError(f"Could not load {path}. It is listed in {self.param.source!r}. {error}.") from error
        if self.param.new_height:
            image = _resized(image, (self.param.new_height, self.param.new_width), "INTER_LINEAR")
        return image

    def _labels(self, text: str, shape: Shape) -> Pixels:
        if self.param.label_type == PIXEL:
            return self._read(text, grey=True)
        value = self.param.ignore_label if self.param.label_type == NONE else int(text)
        return np.full((*shape[:2], 1), np.clip(value, 0, 255), np.uint8)

    def _scaled(self, image: Pixels, labels: Pixels, draw: float) -> tuple[Pixels, Pixels]:
        factors = self.transform.scale_factors
        factor = factors[int(draw * len(factors))] if factors else 1.0
        if factor == 1:
            return image, labels
        size = tuple(max(1, int(np.float32(extent) * np.float32(factor))) for extent in image.shape[:2])
        return _resized(image, size, "INTER_LINEAR"), _resized(labels, size, "INTER_NEAREST")

    def _cropped(self, planes: Pixels, filling: float, draws: Pixels) -> Pixels:
        """The crop of planes (C, H, W) that are filled up to its size first."""
        if not self.crop[0]:
            return planes
        missing = [max(0, new - old) for old, new in zip(planes.shape[1:], self.crop)]
        planes = np.pad(planes, ((0, 0), (0, missing[0]), (0, missing[1])), constant_values=filling)
        room = [old - new for old, new in zip(planes.shape[1:], self.crop)]
        if self.phase == TRAIN:
            top, left = (int(draw * (count + 1)) for draw, count in zip(draws[1:3], room))
        else:
            top, left = (count // 2 for count in room)
        return planes[:, top : top + self.crop[0], left : left + self.crop[1]]

    def state(self) -> dict[str, Any]:
        return {**self._lines.state(), "generator": self._generator.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        self._lines.restore(state)
        self._generator = generator_in_state(state["generator"])


def _resized(image: Pixels, size: tuple[int, ...], how: str) -> Pixels:
    cv2 = load_cv2("ImageSegData's new_height, new_width and scale_factors")
    resized = cv2.resize(image, (size[1], size[0]), interpolation=getattr(cv2, how))
    return np.asarray(resized).reshape(*size, image.shape[2])


def _read_lines(path: str, label_type: int) -> list[tuple[str, str]]:
    """Image and label of each line; they are parted by white space."""
    found = []
    for number, line in enumerate(read_lines(path, "File is empty: could not open the image list"), 1):
        words = line.split()
        if not words:
            continue
        label = words[1] if len(words) > 1 and label_type != NONE else ""
        if label_type == PIXEL and not label:
            raise DataError(f"{path}:{number}: {line!r} names no labels. Lines are `image labels`, two files.")
        if label_type == IMAGE:
            digits = re.match(r"[+-]?\d+", label)  # as atoi: what follows is ignored
            if digits is None:
                raise DataError(
                    f"{path}:{number}: {label!r} is no number. Only label_type: PIXEL takes images as labels."
                )
            label = digits[0]
        found.append((words[0], label))
    if not found:
        raise DataError(f"File is empty: the image list {path!r} names no image.")
    return found
