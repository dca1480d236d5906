"""The names of a net: blobs, parameters and layers in the forms that pycaffe shows."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property
from typing import Any

from pycaffe.blob import Blob
from pycaffe.graph import Graph

__all__ = ["NetStructure"]


class NetStructure:
    """What a net consists of, by name; `Net` adds what it does."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._output_names = [graph.blob_names[i] for i in graph.outputs]
        self._blobs_by_name = OrderedDict(zip(graph.blob_names, graph.blobs))

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """Blobs by name, from input to output."""
        return self._blobs_by_name

    @cached_property
    def params(self) -> OrderedDict[str, list[Blob]]:
        """Parameters by layer name; layers without any are left out."""
        return OrderedDict((n.name, n.layer.blobs) for n in self._graph.nodes if n.layer.blobs)

    @property
    def layers(self) -> list[Any]:
        """The layers in order; a Python layer is the user's own object."""
        return [node.layer.user_layer for node in self._graph.nodes]

    @cached_property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """Layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers))

    @property
    def inputs(self) -> list[str]:
        """Names of the tops of Input layers, in file order."""
        return [self._graph.blob_names[i] for i in self._graph.inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads, sorted."""
        return list(self._output_names)

    @cached_property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """By layer name, the names of its tops."""
        return OrderedDict((n.name, [self._graph.blob_names[i] for i in n.top]) for n in self._graph.nodes)

    @cached_property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """By layer name, the names of its bottoms."""
        return OrderedDict((n.name, [self._graph.blob_names[i] for i in n.bottom]) for n in self._graph.nodes)

    @cached_property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Loss weights by blob name."""
        return OrderedDict(zip(self._graph.blob_names, self._graph.loss_weights))

    # The underscored names are the original's C++ ones; scripts use them.

    @cached_property
    def _layer_names(self) -> list[str]:
        return [node.name for node in self._graph.nodes]

    @property
    def _blob_names(self) -> list[str]:
        return list(self._graph.blob_names)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self._graph.blobs)

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self._graph.loss_weights)

    @property
    def _inputs(self) -> list[int]:
        return list(self._graph.inputs)

    @property
    def _outputs(self) -> list[int]:
        return list(self._graph.outputs)

    def _bottom_ids(self, layer: int) -> list[int]:
        return list(self._graph.nodes[layer].bottom)

    def _top_ids(self, layer: int) -> list[int]:
        return list(self._graph.nodes[layer].top)
