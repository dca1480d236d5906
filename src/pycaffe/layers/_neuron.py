"""Elementwise layers of one bottom and one top, which may be the same blob (neuron_layer.hpp)."""

from __future__ import annotations

from pycaffe.blob import Shape
from pycaffe.layers._base import Layer

__all__ = ["NeuronLayer", "refuse_in_place"]


class NeuronLayer(Layer):
    """Base of layers whose top has the shape of their bottom, each element made from one element."""

    exact_num_bottom_blobs = 1
    exact_num_top_blobs = 1

    def reshape(self, bottom: list[Shape]) -> list[Shape]:
        return [bottom[0]]


def refuse_in_place(layer: Layer) -> None:
    """Demands tops other than the bottoms; for layers that say so in the original.

    Raises:
        LayerError: a top has the name of a bottom.
    """
    shared = [top for top in layer.layer_param.top if top in layer.layer_param.bottom]
    if shared:
        raise layer.error(
            f"{layer.type} Layer does not allow in-place computation. Give the top another name than {shared[0]!r}."
        )
