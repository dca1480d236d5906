"""Input: blobs that the user fills."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.blob import Blob
from pycaffe.layers._base import Layer
from pycaffe.layers._registry import register_layer


@register_layer("Input")
class InputLayer(Layer):
    """Gives its tops their first shape and then leaves them alone: the user reshapes and fills them.

    no bottom; one or more tops. `input_param { shape { dim: D ... } ... }`: one shape for each top, one for all, or
    none (input_layer.cpp).

    Raises:
        LayerError: another number of shapes.
    """

    exact_num_bottom_blobs = 0
    min_top_blobs = 1
    not_lowered = "its tops are the compiled graph's inputs"

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Gives the tops the shapes of the prototxt; the only time that this layer does so."""
        self.num_top = len(top)
        shapes = [tuple(shape.dim) for shape in self.layer_param.input_param.shape]
        if len(shapes) not in (0, 1, self.num_top):
            raise self.error(
                "Must specify 'shape' once, once per top blob, or not at all: "
                f"{self.num_top} tops vs. {len(shapes)} shapes."
            )
        for blob, shape in zip(top, shapes * self.num_top if len(shapes) == 1 else shapes):
            blob.reshape(*shape)

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        """Takes the tops' shapes as they are."""
        self.bottom_shapes, self.top_shapes = [], [blob.shape for blob in top]
