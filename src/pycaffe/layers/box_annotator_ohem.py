"""BoxAnnotatorOHEM: online hard example mining, the regions of greatest loss of each image."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.errors import InputError, ShapeError
from pycaffe.layers._base import Layer
from pycaffe.layers._loss import legacy_extents
from pycaffe.layers._registry import register_layer
from pycaffe.layers._torch import Tensor, torch

__all__ = ["BoxAnnotatorOHEMLayer"]


@register_layer("BoxAnnotatorOHEM")
class BoxAnnotatorOHEMLayer(Layer):
    """Keeps the labels and weights of each image's regions of greatest loss, and sets the others aside.

    bottom: regions (R, 5, H, W), of which the image is read; their losses (R, 1, H, W); labels (R, 1, H, W); weights
        of the box regression (R, K, H, W). H and W are mostly 1, and may be left out.
    top: the labels, `ignore_label` for regions that are not kept; the weights, 0 for these.

    Parameters (box_annotator_ohem_param): roi_per_img, required; ignore_label (-1).

    Of equal losses the first are kept, where the original's order is its sort's; a loss that is not a number counts as
    the smallest. No gradient flows (box_annotator_ohem_layer.cu of R-FCN).

    Raises:
        LayerError: `roi_per_img` is 0.
        ShapeError: the bottoms do not fit each other.
        InputError: a region's image is negative or not a number.
    """

    exact_num_bottom_blobs = 4
    exact_num_top_blobs = 2
    not_lowered = "chooses examples to learn from"
    origin = "R-FCN"
    checked_by = "R-FCN"

    def allow_force_backward(self, bottom_index: int) -> bool:
        return False

    def setup(self, bottom: list[Shape]) -> None:
        param = self.layer_param.box_annotator_ohem_param
        self.count, self.ignore = int(param.roi_per_img), int(param.ignore_label)
        if self.count < 1:
            raise self.error(f"Check failed: roi_per_img_ > 0 ({self.count} vs. 0) Got {self.count!r}.")

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        extents = [legacy_extents(shape) for shape in bottom]
        num, _, height, width = extents[0]
        channels = extents[3][1]
        if extents != [(num, c, height, width) for c in (5, 1, 1, channels)]:
            raise ShapeError(
                "Check failed: bottom[i]->num() == num_, and so on for channels, height and width. Expected regions "
                "(R, 5, H, W), losses and labels (R, 1, H, W) and weights (R, K, H, W). "
                f"Got shapes {', '.join(map(repr, bottom))}."
            )
        return [(num, 1, height, width), (num, channels, height, width)]

    def forward(self, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        rois, losses, labels, weights = (b.detach().reshape(legacy_extents(tuple(b.shape))) for b in bottom)
        kept = self._hardest(rois[:, 0].reshape(-1), losses.reshape(-1)).reshape(losses.shape)
        return [
            torch.where(kept, labels, torch.full_like(labels, self.ignore)),
            torch.where(kept, weights, torch.zeros_like(weights)),
        ]

    def _hardest(self, image: Tensor, losses: Tensor) -> Tensor:
        """Which regions are among the `count` of greatest loss of their image."""
        if not bool((image > -1).all()):
            raise InputError(
                "number of images must be greater than 0 at BoxAnnotatorOHEMLayer, and a region's image not negative. "
                f"Got image {float(image[~(image > -1)][0])!r}."
            )
        order = torch.argsort(losses.nan_to_num(nan=-float("inf")), descending=True, stable=True)
        image = image.trunc()
        order = order[torch.argsort(image[order], stable=True)]  # by image, and by loss within an image
        grouped = image[order].contiguous()
        rank = torch.arange(len(order), device=order.device) - torch.searchsorted(grouped, grouped)
        return torch.zeros_like(order, dtype=torch.bool).scatter(0, order, rank < self.count)

    def backward(
        self,
        top_diff: list[Tensor],
        top: list[Tensor],
        bottom: list[Tensor],
        params: list[Tensor],
        propagate_down: list[bool],
    ) -> tuple[list[Tensor | None], list[Tensor | None]]:
        return [torch.zeros_like(b) if wanted else None for b, wanted in zip(bottom, propagate_down)], []
