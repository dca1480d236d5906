"""PriorBox: SSD's default boxes for each pixel of a feature map."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

SAME_RATIO = 1e-6  # two aspect ratios that differ by less are one
MAX_PRIORS = 2**24  # 512 MB of boxes and variances; SSD512 has 24564


@register_layer("PriorBox")
class PriorBoxLayer(Layer):
    """Boxes around the centre of each pixel of a feature map, and their variances.

    bottom[0]: (N, C, H, W), the feature map; only its extents count.
    bottom[1]: (N, C, H', W'), the image; needed only without `img_size`.
    top: (1, 2, H * W * P * 4). Row 0: for each pixel P boxes xmin, ymin, xmax, ymax in units of the image's size,
        around ((w + offset) * step_w, (h + offset) * step_h). Row 1: for each box its four variances.

    For each `min_size` the boxes are, in this order: a square of min_size; with `max_size` a square of
    sqrt(min_size * max_size); for each aspect ratio r but 1, min_size * sqrt(r) wide and min_size / sqrt(r) high.
    Sizes are cut down to whole pixels, as in the fork; not in dialect "opencv".

    Parameters (prior_box_param): min_size, repeated, needed; max_size, repeated, as many or none; aspect_ratio,
    repeated; flip (true): 1 / r as well; clip (false): coordinates limited to 0 ... 1; variance: four, or one for all
    (0.1); img_size, or img_h and img_w (those of bottom[1]); step, or step_h and step_w (image size / extent of the
    feature map); offset (0.5). As in prior_box_layer.cpp of SSD.

    backward: zeros.

    Raises:
        LayerError: a parameter is missing, not positive or given twice.  ShapeError: no image, no pixel, or more than
        2^24 boxes.
    """

    min_bottom_blobs = 1
    max_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "SSD"

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.prior_box_param
        self.sizes = self._box_sizes()
        self.variance = list(param.variance) or [0.1]
        if len(self.variance) not in (1, 4):
            raise self.error(f"Must and only provide 4 variance. Got {self.variance!r}.")
        self._check_positive("variance", self.variance)
        self.image = self._pair("img", "img_size", "img_h/img_w")
        self.step = self._pair("step", "step", "step_h/step_w")
        self._boxes: tuple[object, FloatArray] | None = None

    def _box_sizes(self) -> list[tuple[float, float]]:
        """Width and height in pixels of the boxes of one pixel."""
        param = self.layer_param.prior_box_param
        least, most = list(param.min_size), list(param.max_size)
        if not least:
            raise self.error("must provide min_size.")
        self._check_positive("min_size", least)
        if most and len(most) != len(least):
            raise self.error(
                f"Check failed: min_size_size == max_size_size ({len(least)} vs. {len(most)}). "
                "Give one max_size for each min_size, or none."
            )
        for small, large in zip(least, most):
            if not large > small:
                raise self.error(f"max_size must be greater than min_size. Got {large!r} for {small!r}.")
        if not all(map(math.isfinite, [*least, *most])):
            raise self.error(f"min_size and max_size must be finite. Got {least!r} and {most!r}.")
        ratios, sizes = self._aspect_ratios(), list[tuple[float, float]]()
        if self.dialect != "opencv":
            least, most = list(map(math.trunc, least)), list(map(math.trunc, most))
        for i, size in enumerate(least):
            sizes.append((size, size))
            if most:
                sizes.append((math.sqrt(size * most[i]),) * 2)
            sizes += [(size * math.sqrt(r), size / math.sqrt(r)) for r in ratios]
        return sizes

    def _aspect_ratios(self) -> list[float]:
        """All aspect ratios but 1, each once."""
        param = self.layer_param.prior_box_param
        self._check_positive("aspect_ratio", list(param.aspect_ratio))
        ratios = [1.0]
        for ratio in param.aspect_ratio:
            if all(abs(ratio - known) >= SAME_RATIO for known in ratios):
                ratios += [ratio, float(np.float32(1 / ratio))] if param.flip else [ratio]
        return [ratio for ratio in ratios if abs(ratio - 1) >= SAME_RATIO]

    def _pair(self, stem: str, both: str, either: str) -> tuple[float, float] | None:
        """Height and width by one field for both, or by one for each; None without any."""
        param = self.layer_param.prior_box_param
        fields = [f"{stem}_h", f"{stem}_w"]
        if not any(map(param.HasField, fields)):
            if not param.HasField(both):
                return None
            fields = [both, both]
        elif param.HasField(both):
            raise self.error(f"Either {both} or {either} should be specified; not both.")
        for field in fields:
            if not 0 < getattr(param, field) < math.inf:
                raise self.error(f"{field} should be larger than 0. Got {getattr(param, field)!r}.")
        return getattr(param, fields[0]), getattr(param, fields[1])

    def _check_positive(self, name: str, values: list[float]) -> None:
        for value in values:
            if not value > 0:
                raise self.error(f"{name} must be positive. Got {value!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        height, width = _plane(bottom[0])
        if self.image is None and len(bottom) < 2:
            raise ShapeError("PriorBox needs the image as its second bottom, or img_size. Got one bottom.")
        if self.image is None and 0 in _plane(bottom[1]):
            raise ShapeError(f"PriorBox cannot divide by an image of shape {bottom[1]!r}.")
        count = height * width * len(self.sizes)
        if not 0 < count <= MAX_PRIORS:
            raise ShapeError(
                f"Check failed: top_shape[2] > 0, and at most {MAX_PRIORS} boxes. Got {count!r}: "
                f"{len(self.sizes)} for each pixel of shape {bottom[0]!r}."
            )
        return [(1, 2, count * 4)]

    def boxes(self) -> FloatArray:
        """The top for the shapes of the last reshape; computed once for them."""
        image = self.image or _plane(self.bottom_shapes[1])
        extents = _plane(self.bottom_shapes[0])
        if self._boxes is None or self._boxes[0] != (extents, image):
            self._boxes = (extents, image), self._compute(extents, image)
        return self._boxes[1]

    def _compute(self, extents: tuple[int, int], image: tuple[float, float]) -> FloatArray:
        param = self.layer_param.prior_box_param
        steps = self.step or (np.float32(image[0]) / extents[0], np.float32(image[1]) / extents[1])
        boxes = np.empty((*extents, len(self.sizes), 4), np.float32)
        sizes = np.array(self.sizes, np.float32).astype(np.float64)
        for axis, columns in ((1, (0, 2)), (0, (1, 3))):
            at = np.arange(extents[axis], dtype=np.float32) + np.float32(param.offset)
            center = (at * np.float32(steps[axis])).astype(np.float64)
            center = center.reshape(-1, 1, 1) if axis == 0 else center.reshape(1, -1, 1)
            half = sizes[:, 1 - axis] / 2
            boxes[..., columns[0]] = (center - half) / image[axis]
            boxes[..., columns[1]] = (center + half) / image[axis]
        if param.clip:
            np.clip(boxes, 0, 1, out=boxes)
        variance = np.broadcast_to(np.array(self.variance, np.float32), boxes.shape)
        return np.stack([boxes.reshape(-1), variance.reshape(-1)])[np.newaxis]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return [torch.from_numpy(self.boxes()).to(bottom[0].device)]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        return [torch.zeros_like(x) if wanted else None for x, wanted in zip(bottom, propagate_down)], []

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        return [g.constant(self.boxes())]


def _plane(shape: Shape) -> tuple[int, int]:
    """Height and width, 1 where they are missing (the legacy accessors of Blob)."""
    height, width = (*shape[2:4], 1, 1)[:2]
    return height, width
