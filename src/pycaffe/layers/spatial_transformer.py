"""SpatialTransformer: samples an image on a grid that an affine map moved."""

from __future__ import annotations

import math

import numpy as np

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._lowering import Lowering
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["SpatialTransformerLayer"]

THETA = ("theta_1_1", "theta_1_2", "theta_1_3", "theta_2_1", "theta_2_2", "theta_2_3")


@register_layer("SpatialTransformer")
class SpatialTransformerLayer(Layer):
    """y[n, c, s, t] = u[n, c] at (x, y), interpolated between its four neighbours; pixels outside u are 0.

    x = (p + 1) / 2 * H and y = (q + 1) / 2 * W with (p, q) = theta_n * (2 s / H' - 1, 2 t / W' - 1, 1): rows come
    first, and the grid's last row lies before H.

    bottom: u (N, C, H, W); theta (N, K), the rows of a 2 x 3 matrix, K = 6 less the values that are given.
    top: (N, C, H', W').

    Parameters (st_param): output_H (H), output_W (W); theta_1_1 ... theta_2_3: values that are given and not read from
    theta; to_compute_dU (true): whether u gets a gradient; transform_type "affine", sampler_type "bilinear".

    backward: the derivative; where x or y falls on a pixel exactly, that direction's is 0. For a theta of fewer than 6
    values the original's CPU code writes beside it (st_layer.cpp of daerduoCarey/SpatialTransformerLayer).

    A position that is not finite, or far outside, gives 0.

    Raises:
        LayerError: the transform or the sampler is another, or an extent of the top is not positive.
        ShapeError: theta has not one row an item, or not K values.
    """

    exact_num_bottom_blobs = 2
    exact_num_top_blobs = 1
    origin = "SpatialTransformerLayer"
    checked_by = "NumPy loop"

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.st_param
        for name, only in (("transform_type", "affine"), ("sampler_type", "bilinear")):
            if getattr(param, name) != only:
                raise self.error(f"{name} only supports {only} now! Got {getattr(param, name)!r}.")
        given = {name: getattr(param, name) for name in THETA if param.HasField(name)}
        self.fixed = [float(given.get(name, 0.0)) for name in THETA]
        self.read = [i for i, name in enumerate(THETA) if name not in given]

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        image, theta = bottom
        param = self.layer_param.st_param
        if len(image) != 4:
            raise ShapeError(f"Input must have 4 axes, (num, channels, height, width). Got shape {image!r}.")
        size = [
            int(getattr(param, name)) if param.HasField(name) else extent
            for name, extent in (("output_H", image[2]), ("output_W", image[3]))
        ]
        if min(size) < 1:
            raise self.error(f"output_H and output_W must be positive. Got {size!r}.")
        if theta[:1] != image[:1]:
            raise ShapeError(
                "The first dimension of theta and U should be the same (batch size). "
                f"Got shapes {theta!r} and {image!r}."
            )
        if math.prod(theta[1:]) != len(self.read):
            raise ShapeError(
                f"The dimension of theta is not six! Expected {len(self.read)} values an item, and "
                f"{6 - len(self.read)} are given. Got shape {theta!r}."
            )
        return [(*image[:2], *size)]

    def _grid(self) -> np.ndarray:
        """(s, t) of each pixel of the top in -1 .. 1, and 1: (3, H' * W')."""
        height, width = self.top_shapes[0][2:]
        rows, columns = (np.arange(extent) / extent * 2 - 1 for extent in (height, width))
        rows, columns = np.meshgrid(rows, columns, indexing="ij")
        return np.stack([rows.ravel(), columns.ravel(), np.ones(rows.size)])

    def _theta(self, theta: Tensor) -> Tensor:
        """The whole matrix, (N, 2, 3)."""
        num = theta.shape[0]
        fixed = torch.tensor(self.fixed).to(theta).repeat(num, 1)
        index = torch.tensor(self.read, dtype=torch.int64, device=theta.device)
        return fixed.index_copy(1, index, theta.reshape(num, -1)).reshape(num, 2, 3)

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        u, (num, channels, height, width) = bottom[0], bottom[0].shape
        if not self.layer_param.st_param.to_compute_dU:
            u = u.detach()
        moved = self._theta(bottom[1]) @ torch.from_numpy(self._grid()).to(u)
        x, y = ((moved[:, axis] + 1) / 2 * extent for axis, extent in ((0, height), (1, width)))
        flat = u.reshape(num, channels, height * width)
        total = flat.new_zeros(num, channels, x.shape[1])
        for row, row_share in _neighbours(x, height):
            for column, column_share in _neighbours(y, width):
                index = (row * width + column)[:, None].expand(-1, channels, -1)
                total = total + flat.gather(2, index) * (row_share * column_share)[:, None]
        return [total.reshape(self.top_shapes[0])]

    def lower(self, g: Lowering, bottom: list[str], params: list[str]) -> list[str]:
        height, width = self.bottom_shapes[0][2:]
        out_height, out_width = self.top_shapes[0][2:]
        # a constant matrix puts the values read into their places, in the order (column, row) that GridSample wants
        places = np.zeros((len(self.read), 6))
        places[np.arange(len(self.read)), self.read] = 1
        theta = g.op("MatMul", g.reshape(bottom[1], (-1, len(self.read))), g.constant(places))
        theta = g.reshape(g.op("Add", theta, g.constant([self.fixed])), (-1, 2, 3))
        theta = g.op("Gather", theta, g.constant([1, 0], np.int64), axis=1)
        moved = g.op("Transpose", g.op("MatMul", theta, g.constant(self._grid())), perm=[0, 2, 1])
        # GridSample counts from the middle of the first pixel: half a pixel more; far outside is cut for its integers
        moved = g.op("Add", moved, g.constant([1 / width, 1 / height]))
        moved = g.op(
            "Clip", g.op("Where", g.op("IsNaN", moved), g.constant(4.0), moved), g.constant(-4.0), g.constant(4.0)
        )
        grid = g.reshape(moved, (-1, out_height, out_width, 2))
        return [g.op("GridSample", bottom[0], grid, mode="bilinear", padding_mode="zeros", align_corners=0)]


def _neighbours(position: Tensor, extent: int) -> list[tuple[Tensor, Tensor]]:
    """The pixels at and after each position and their shares; a pixel outside, or that a position hits, has none."""
    position = torch.where(torch.isfinite(position), position, torch.full_like(position, -2)).clamp(-2, extent + 1)
    found: list[tuple[Tensor, Tensor]] = []
    for pixel in (position.detach().floor(), position.detach().ceil()):
        inside = (pixel >= 0) & (pixel <= extent - 1)
        if found:
            inside = inside & (pixel != position)
        share = torch.where(inside, 1 - (position - pixel).abs(), torch.zeros_like(position))
        found.append((pixel.clamp(0, extent - 1).to(torch.int64), share))
    return found
