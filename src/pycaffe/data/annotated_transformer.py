"""SSD's way from an annotated image to the net's input: what it does to pixels, it does to boxes, too.

    distort_param → expand_param → batch_sampler → resize_param → noise_param → crop, mirror → mean, scale
                    └──── move boxes, drop those outside, and those that emit_constraint refuses ────┘

The fork writes the image as a JPEG file and reads it again after each of the first three; here pixels stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Shape
from pycaffe.data.annotated_datum import Annotations
from pycaffe.data.batch_sampler import check_batch_sampler, sample_boxes
from pycaffe.data.boxes import Array, box_coverages, clip_boxes, project_boxes
from pycaffe.data.image_augmentation import (
    FIT_LARGE_SIZE_AND_PAD,
    FIT_SMALL_SIZE,
    add_noise,
    distort_image,
    resize_image,
    resized_extents,
)
from pycaffe.data.transformer import DataTransformer, Draws, mean_values
from pycaffe.errors import DataError, LayerError
from pycaffe.rng import child_generator, generator_in_state

__all__ = ["AnnotatedImage", "AnnotatedTransformer"]

CENTER = 0  # EmitConstraint.EmitType; MIN_OVERLAP is 1
LARGEST_IMAGE = 2**31 - 1  # values, as of a blob


class AnnotatedImage(NamedTuple):
    """An image (H, W, C), the objects in it, and its name for messages."""

    pixels: npt.NDArray[Any]
    objects: Annotations
    name: str


class AnnotatedTransformer:
    """Transforms annotated images as a TransformationParameter and BatchSamplers say.

    What is random about an image comes from a generator of its own, so that it does not depend on threads; `draw`
    gives its seed.

    Args:
        param: a TransformationParameter.
        phase: of the net.
        samplers: BatchSampler messages; where one finds a part of an image, one of all parts found is taken.

    Raises:
        LayerError: a parameter is impossible.
        DataError: the mean file cannot be read.
    """

    def __init__(self, param: Any, phase: int, samplers: Sequence[Any]) -> None:
        self.param = param
        self.plain = DataTransformer(param, phase)
        self.samplers = list(samplers)
        for sampler in self.samplers:
            check_batch_sampler(sampler)
        self.resize = param.resize_param if param.HasField("resize_param") else None
        if self.resize is not None and not (self.resize.height and self.resize.width):
            raise LayerError(
                "Check failed: resize_param.height() > 0 and resize_param.width() > 0. "
                f"Got {self.resize.height!r} and {self.resize.width!r}."
            )
        if param.HasField("expand_param") and not param.expand_param.max_expand_ratio > 1:
            raise LayerError(f"Check failed: max_expand_ratio > 1. ({param.expand_param.max_expand_ratio!r} vs. 1).")
        if param.HasField("distort_param"):
            _check_distortion(param.distort_param)
        self._generator = child_generator()

    def draw(self, count: int) -> npt.NDArray[np.int64]:
        """Seeds for `count` images."""
        return self._generator.integers(2**63 - 1, size=count)

    def state(self) -> Any:
        """Where the sequence of seeds is, as a JSON-able value."""
        return self._generator.bit_generator.state

    def restore(self, state: Any) -> None:
        """Goes on with the seeds that followed `state`. Raises KeyError, TypeError, ValueError where it is none."""
        self._generator = generator_in_state(state)

    def output_shape(self, image: AnnotatedImage) -> Shape:
        """(C, H', W') of what `transform` makes of an image."""
        height, width, channels = image.pixels.shape
        if self.resize is not None:
            height, width = resized_extents(self.resize, height, width)
        return self.plain.output_shape(np.broadcast_to(np.uint8(0), (channels, height, width)), image.name)

    def transform(self, image: AnnotatedImage, seed: int) -> tuple[AnnotatedImage, Draws]:
        """The image and its objects before the crop and mean subtraction, which `finish` does with the draws."""
        generator = np.random.default_rng(seed)
        param, name = self.param, image.name
        if param.HasField("distort_param"):
            image = image._replace(pixels=distort_image(image.pixels, param.distort_param, generator, name))
        if param.HasField("expand_param"):
            image = self._expand(image, generator)
        parts = sample_boxes(self.samplers, image.objects.box, generator)
        if len(parts):
            image = self._cut(image, parts[int(generator.integers(len(parts)))])
        extents = image.pixels.shape[:2]
        if self.resize is not None:
            image = image._replace(pixels=resize_image(image.pixels, self.resize, generator))
        if param.HasField("noise_param"):
            image = image._replace(pixels=add_noise(image.pixels, param.noise_param, generator, name))
        draws = generator.random(3)
        return image._replace(objects=self._final_objects(image, extents, draws)), draws

    def finish(self, image: AnnotatedImage, draws: Draws, out: npt.NDArray[np.float32]) -> None:
        """Crops, mirrors, subtracts the mean and scales, into `out` (C, H', W'), an image from `transform`."""
        self.plain.transform(image.pixels.transpose(2, 0, 1), out, image.name, draws)

    def _keep(self, objects: Annotations, source: Array) -> Annotations:
        """The objects in units of the box `source`, without those outside, and those that emit_constraint refuses."""
        box, kept = project_boxes(objects.box, source)
        if self.param.HasField("emit_constraint"):
            kept &= _emitted(objects.box, source, self.param.emit_constraint)
        return objects._replace(box=box).select(kept)

    def _expand(self, image: AnnotatedImage, generator: np.random.Generator) -> AnnotatedImage:
        """Puts the image somewhere on a larger one that is filled with the mean."""
        param = self.param.expand_param
        if generator.random() > param.prob or abs(param.max_expand_ratio - 1) < 0.01:
            return image
        ratio = generator.uniform(1, param.max_expand_ratio)
        extents = np.array(image.pixels.shape[:2])
        larger = (extents * ratio).astype(np.int64)
        channels = image.pixels.shape[2]
        if int(larger[0]) * int(larger[1]) * channels > LARGEST_IMAGE:
            raise DataError(
                f"{image.name} expanded by {ratio:g} is too large: {larger.tolist()!r}. Lower expand_param."
            )
        top, left = (generator.random(2) * (larger - extents)).astype(np.int64)
        pixels = np.empty((*larger, channels), image.pixels.dtype)
        pixels[...] = self._fill(image, (int(larger[0]), int(larger[1])))
        pixels[top : top + extents[0], left : left + extents[1]] = image.pixels
        low, high = -np.array([left, top]), larger[::-1] - np.array([left, top])
        source = (np.concatenate([low, high]) / np.tile(extents[::-1], 2)).astype(np.float32)
        return image._replace(pixels=pixels, objects=self._keep(image.objects, source))

    def _fill(self, image: AnnotatedImage, extents: tuple[int, int]) -> Array:
        if self.plain.mean is not None:
            if self.plain.mean.shape[1:] != extents:
                raise DataError(
                    f"Check failed: height == data_mean_.height(). {image.name} expanded has the extents {extents!r}, "
                    f"the mean {self.plain.mean.shape!r}: with expand_param give mean_value."
                )
            return np.asarray(np.rint(self.plain.mean.transpose(1, 2, 0)))
        if self.param.mean_value:
            return np.asarray(np.rint(mean_values(self.param.mean_value, image.pixels.shape[2])[:, 0, 0]))
        return np.zeros(1, np.float32)

    def _cut(self, image: AnnotatedImage, box: Array) -> AnnotatedImage:
        """The part of the image in the box (4,), of one pixel at least."""
        box = clip_boxes(box)
        height, width = image.pixels.shape[:2]
        left, top, right, bottom = box * np.array([width, height, width, height], np.float32)
        row, column = min(int(top), height - 1), min(int(left), width - 1)
        rows, columns = max(1, int(bottom - top)), max(1, int(right - left))
        pixels = image.pixels[row : row + rows, column : column + columns]
        return image._replace(pixels=pixels, objects=self._keep(image.objects, box))

    def _final_objects(self, image: AnnotatedImage, old: tuple[int, ...], draws: Draws) -> Annotations:
        """The objects of an image, which was resized from the extents `old`, in units of its crop."""
        height, width, channels = image.pixels.shape
        objects = image.objects
        if self.resize is not None:
            objects = objects._replace(box=_resized_boxes(objects.box, self.resize, old[0], old[1]))
        _, rows, columns = self.plain.output_shape(image.pixels.transpose(2, 0, 1), image.name)
        top, left, mirrored = self.plain.placement((channels, height, width), draws)
        crop = np.array([left / width, top / height, (left + columns) / width, (top + rows) / height], np.float32)
        objects = self._keep(objects, crop)
        box = objects.box
        if mirrored:
            box = np.stack([1 - box[:, 2], box[:, 1], 1 - box[:, 0], box[:, 3]], axis=1)
        if self.resize is not None:
            box = _extrapolated(box, self.resize, old, crop, image.name)
        return objects._replace(box=box)


def _check_distortion(param: Any) -> None:
    for field in ("brightness_delta", "hue_delta", "contrast_lower", "saturation_lower"):
        if getattr(param, field) < 0:
            kind, _, limit = field.partition("_")
            name = field if limit == "delta" else f"{kind} {limit}"
            raise LayerError(f"{name} must be non-negative. Got {getattr(param, field)!r}.")
    for kind in ("contrast", "saturation"):
        lower, upper = getattr(param, f"{kind}_lower"), getattr(param, f"{kind}_upper")
        if upper < lower:
            raise LayerError(f"{kind} upper must be >= lower. Got {upper!r} and {lower!r}.")


def _emitted(boxes: Array, source: Array, constraint: Any) -> npt.NDArray[np.bool_]:
    """Which boxes an EmitConstraint lets through: their centre is in `source` (4,), or enough of them."""
    if constraint.emit_type == CENTER:
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside: npt.NDArray[np.bool_] = np.all((center >= source[:2]) & (center <= source[2:]), axis=1)
        return inside
    enough: npt.NDArray[np.bool_] = box_coverages(boxes, source[None])[:, 0] > constraint.emit_overlap
    return enough


def _fitted(param: Any, aspect: np.float32) -> Array:
    """(width, height) that FIT_SMALL_SIZE gives, not yet rounded."""
    width, height = np.float32(param.width), np.float32(param.height)
    if aspect < width / height:
        return np.array([width, width / aspect], np.float32)
    return np.array([aspect * height, height], np.float32)


def _resized_boxes(boxes: Array, param: Any, height: int, width: int) -> Array:
    """The boxes in units of the image that `resize_image` makes of one of that height and width."""
    aspect = np.float32(width) / np.float32(height)
    new = np.array([param.width, param.height], np.float32)
    padding = np.zeros(2, np.float32)
    if param.resize_mode == FIT_SMALL_SIZE:
        new = _fitted(param, aspect)
    elif param.resize_mode == FIT_LARGE_SIZE_AND_PAD:
        if aspect > new[0] / new[1]:
            padding[1] = (new[1] - new[0] / aspect) / 2
        else:
            padding[0] = (new[0] - aspect * new[1]) / 2
    inner = new - 2 * padding
    low = padding + np.maximum(boxes[:, :2] * inner, 0)
    high = padding + np.minimum(boxes[:, 2:] * inner, new)
    return np.asarray(np.concatenate([low, high], axis=1) / np.tile(new, 2))


def _extrapolated(boxes: Array, param: Any, old: tuple[int, ...], crop: Array, name: str) -> Array:
    """With FIT_SMALL_SIZE, `height_scale` and `width_scale`: boxes in units of these, not of the crop."""
    if param.resize_mode != FIT_SMALL_SIZE or not (param.height_scale and param.width_scale):
        return boxes
    size = _fitted(param, np.float32(old[1]) / np.float32(old[0])) * (crop[2:] - crop[:2])
    scale = np.array([param.width_scale, param.height_scale], np.float32)
    if (size < scale).any():
        raise DataError(
            "Check failed: crop_width >= width_scale and crop_height >= height_scale. "
            f"{name}: {size.tolist()!r} vs. {scale.tolist()!r}."
        )
    return np.asarray(boxes * np.tile(size / scale, 2))
