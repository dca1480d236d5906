"""Slice: cuts a blob along an axis."""

from __future__ import annotations

import itertools

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.layers.concat import axis_or_legacy_dim

_TO_THE_END = np.iinfo(np.int64).max


@register_layer("Slice")
class SliceLayer(Layer):
    """Cuts its bottom along an axis, into equal parts or at given points.

    bottom: any shape with the axis.
    tops: one or more parts, in order; together they have the bottom's extent along the axis.
    `slice_param { axis: 1 slice_point: P ... }`, or the older `slice_dim`, which may not be negative; slice_point is
    empty or has one entry less than there are tops (slice_layer.cpp).

    Raises:
        LayerError: axis and slice_dim are both given, or the axis is out of range.
        ShapeError: the points do not increase, do not fit the tops or the extent; or the tops do not divide it evenly.
    """

    exact_num_bottom_blobs = 1
    min_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        self.axis = axis_or_legacy_dim(self.layer_param.slice_param, "slice_dim", len(shape))
        self.points = [int(point) for point in self.layer_param.slice_param.slice_point]
        extent = shape[self.axis]
        if self.points:
            self._check_points(shape)
            edges = [0, *self.points, extent]
            self.sizes = [end - start for start, end in itertools.pairwise(edges)]
        elif extent % self.num_top:
            raise ShapeError(
                f"Number of top blobs ({self.num_top}) should evenly divide input slice axis ({extent}). "
                f"Got bottom[0] shape {shape!r}; give slice_point for uneven parts."
            )
        else:
            self.sizes = [extent // self.num_top] * self.num_top
        return [(*shape[: self.axis], size, *shape[self.axis + 1 :]) for size in self.sizes]

    def _check_points(self, shape: Shape) -> None:
        where = f"slice axis: {self.axis}, bottom[0] shape: {shape!r}, slice_point {self.points!r}."
        extent = shape[self.axis]
        if len(self.points) != self.num_top - 1:
            raise ShapeError(
                f"Check failed: slice_point_.size() == top.size() - 1 ({len(self.points)} vs. {self.num_top - 1}). "
                + where
            )
        if self.num_top > extent:
            raise ShapeError(f"Check failed: top.size() <= bottom_slice_axis ({self.num_top} vs. {extent}). {where}")
        if any(point <= previous for previous, point in itertools.pairwise([0, *self.points])):
            raise ShapeError(f"Check failed: slice_point_[i] > prev. {where} The points must increase from 1.")
        if self.points[-1] > extent:
            raise ShapeError(f"Check failed: shape[i] >= 0. {where} The last point lies past the end.")

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        return list(torch.split(bottom[0], self.sizes, dim=self.axis))

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        if self.num_top == 1:
            return [g.op("Identity", bottom[0])]
        if not self.points:  # without sizes: the extent may be a symbolic batch
            return g.ops("Split", bottom[0], outputs=self.num_top, axis=self.axis)
        edges = [0, *self.points, _TO_THE_END]
        axis = g.shape([self.axis])
        return [
            g.op("Slice", bottom[0], g.shape([start]), g.shape([end]), axis) for start, end in itertools.pairwise(edges)
        ]
