"""Filter: lets only the selected items of a batch through."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch


@register_layer("Filter")
class FilterLayer(Layer):
    """Passes on the items whose selector is not zero.

    bottom: one or more blobs (N, ...), and last the selector, (N), (N, 1), (N, 1, 1), ...
    top: one for each bottom but the selector: (M, ...) with M <= N, the number of items selected; it is known only in
        forward, so after set-up it is N. Where none is selected, the tops are empty.

    backward: items that were left out get zeros. Nothing flows to the selector: as in the original it is an error to
    ask for that; but `force_backward`, which asks for it there, does not here (filter_layer.cpp).

    Raises:
        LayerError: there is not one top less than bottoms, or backward to the selector is asked for.
        ShapeError: the selector has a second axis longer than 1, or the batches differ.
    """

    min_bottom_blobs = 2
    min_top_blobs = 1
    not_lowered = "how many items it passes on depends on the data, and layers after it are compiled for fixed shapes"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != len(self.layer_param.bottom) - 1

    def setup(self, bottom: list[Shape]) -> None:
        if self.num_top != len(bottom) - 1:
            raise self.error(
                f"Check failed: top.size() == bottom.size() - 1 ({self.num_top} vs. {len(bottom) - 1}). "
                "Filter has a top for each bottom but the last, the selector."
            )

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        *shapes, selector = bottom
        if any(extent != 1 for extent in selector[1:]):
            raise ShapeError(
                f"Selector blob dimensions must be singletons (1), except the first. Got shape {selector!r}."
            )
        for shape in shapes:
            if shape[:1] != selector[:1] or not selector:
                raise ShapeError(
                    "Each bottom should have the same 0th dimension as the selector blob. "
                    f"Got {shape!r} with a selector {selector!r}."
                )
        return shapes

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        *blobs, selector = bottom
        selected = torch.nonzero(selector.reshape(-1)).reshape(-1)
        return [blob.index_select(0, selected) for blob in blobs]

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        *blobs, selector = bottom
        if propagate_down[-1]:
            raise self.error(
                "Filter Layer cannot backpropagate to filter index inputs. Set propagate_down for each bottom of this "
                "layer, false for the last."
            )
        selected = torch.nonzero(selector.reshape(-1)).reshape(-1)
        diffs: list[Tensor | None] = [
            torch.zeros_like(blob).index_copy(0, selected, diff) if wanted else None
            for blob, diff, wanted in zip(blobs, top_diff, propagate_down)
        ]
        return [*diffs, None], []
