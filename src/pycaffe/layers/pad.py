"""Pad: a frame around each plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._neuron import refuse_in_place
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["PadLayer"]

CONSTANT, REPLICATE = 0, 1  # PadParameter.PadType; 2 is REFLECT
Sides = tuple[int, int]  # before and behind


@register_layer("Pad")
class PadLayer(Layer):
    """Puts rows and columns around each plane, or with negative numbers takes them away.

    bottom: (..., H, W), at least 2 axes.  top: (..., up + H + down, left + W + right).

    Parameters (pad_param), of several forks: the rows and columns by `pad`, or by `pad_h` and `pad_w`, or by pad_u (or
    pad_t), pad_d (or pad_b), pad_l and pad_r (all 0 by default; only these may be negative). What is in them:
    `pad_type` CONSTANT (the default: `pad_value`, 0), REPLICATE (the nearest pixel) or REFLECT (the mirror image,
    without the edge itself), or, in the fork that calls it `padtype`, ZERO, REPLICATE or REFLECT with the edge.

    Raises:
        LayerError: numbers of more than one kind, or the top is the bottom.
        ShapeError: nothing remains, or REFLECT has less to mirror than it needs.
    """

    origin = "several forks"
    checked_by = "NumPy loop"
    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def setup(self, bottom: list[Shape]) -> None:
        refuse_in_place(self)
        param = self.layer_param.pad_param
        self.mirror_edge = param.HasField("padtype")
        self.pad_type: int = param.padtype if self.mirror_edge else param.pad_type
        self.value: float = param.pad_value
        self.rows, self.columns = self._sides(param)

    def _sides(self, param: Any) -> tuple[Sides, Sides]:
        kinds = [("pad",), ("pad_h", "pad_w"), tuple(f"pad_{side}" for side in "udtblr")]
        given = [[name for name in kind if param.HasField(name)] for kind in kinds]
        if sum(map(bool, given)) > 1 or (param.pad_u and param.pad_t) or (param.pad_d and param.pad_b):
            raise self.error(
                "Pad takes pad, or pad_h and pad_w, or the four sides, each by one name. "
                f"Got {[name for kind in given for name in kind]!r}."
            )
        if given[0]:
            return (param.pad, param.pad), (param.pad, param.pad)
        if given[1]:
            return (param.pad_h, param.pad_h), (param.pad_w, param.pad_w)
        return (param.pad_u + param.pad_t, param.pad_d + param.pad_b), (param.pad_l, param.pad_r)

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        shape = bottom[0]
        if len(shape) < 2:
            raise ShapeError(f"Pad's bottom has at least 2 axes (H, W). Got shape {shape!r}.")
        for extent, (before, behind) in zip(shape[-2:], (self.rows, self.columns)):
            if before + extent + behind < 1 or -min(before, behind) >= extent:
                raise ShapeError(f"Pad: nothing remains. Got shape {shape!r}, pad {self.rows!r} and {self.columns!r}.")
            most = extent if self.mirror_edge else extent - 1
            if self.pad_type > REPLICATE and max(before, behind) > most:
                raise ShapeError(
                    f"Pad: REFLECT mirrors at most {most!r} of {extent!r} pixels. Got pad {(before, behind)!r}."
                )
        (up, down), (left, right) = self.rows, self.columns
        return [(*shape[:-2], up + shape[-2] + down, left + shape[-1] + right)]

    def _sources(self) -> list[npt.NDArray[np.int64]]:
        """For each row and each column of the top the one of the bottom that it shows."""
        sources = []
        for extent, (before, behind) in zip(self.bottom_shapes[0][-2:], (self.rows, self.columns)):
            place = np.arange(-before, extent + behind)
            if self.pad_type == REPLICATE:
                place = np.clip(place, 0, extent - 1)
            else:
                edge = int(self.mirror_edge)
                place = np.where(place < 0, -place - edge, place)
                place = np.where(place >= extent, 2 * (extent - 1) + edge - place, place)
            sources.append(place.astype(np.int64))
        return sources

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        x = bottom[0]
        if self.pad_type == CONSTANT:
            return [torch.nn.functional.pad(x, (*self.columns, *self.rows), value=self.value)]
        rows, columns = (torch.from_numpy(source).to(x.device) for source in self._sources())
        return [x.index_select(-2, rows).index_select(-1, columns)]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        x, axes = bottom[0], len(self.bottom_shapes[0])
        if self.pad_type == CONSTANT:
            (up, down), (left, right) = self.rows, self.columns
            zeros = [0] * (axes - 2)
            return [g.op("Pad", x, g.shape([*zeros, up, left, *zeros, down, right]), g.constant(self.value))]
        for axis, source in zip((axes - 2, axes - 1), self._sources()):
            x = g.op("Gather", x, g.constant(source, np.int64), axis=axis)
        return [x]
