"""What a net says of itself: names, ids, shapes, operations, memory. Ids and names are OpenCV's.

Layer 0 is `_input`, which stands for all inputs; the layers of the prototxt follow from 1 on, without Input layers and
without Splits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray, Shape
from pycaffe.cv2dnn.flops import layer_flops
from pycaffe.cv2dnn.opencv_error import raises_opencv_errors
from pycaffe.errors import InputError, NetError, did_you_mean
from pycaffe.graph import Graph, build_graph
from pycaffe.net import TEST
from pycaffe.net import Net as CaffeNet
from pycaffe.proto.net_source import NetSource

__all__ = ["Inspection", "Layer", "LayerEntry"]

TYPES_OF_OPENCV = {"ConvolutionDepthwise": "Convolution"}
POOLING = ("MAX", "AVE", "STOCHASTIC")
INPUT_NAME, INPUT_TYPE = "_input", "__NetInputLayer__"
Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class LayerEntry:
    """A layer as OpenCV counts them.

    Attributes:
        name, type: as OpenCV shows them.
        node: the index in the graph; for `_input` -1.
        tops: the names of its blobs, one for each output.
    """

    name: str
    type: str
    node: int
    tops: tuple[str, ...]


class Layer:
    """What `getLayer` gives.

    Attributes:
        name, type: as in the prototxt; of layer 0 the type is empty, as in OpenCV.
        blobs: copies of the parameters; a vector has two axes, as in OpenCV.
        preferableTarget: 0, the CPU.
    """

    def __init__(self, entry: LayerEntry, blobs: tuple[FloatArray, ...], inputs: Sequence[str]) -> None:
        self.name = entry.name
        self.type = entry.type if entry.node >= 0 else ""
        self.blobs = blobs
        self.preferableTarget = 0
        self._inputs = None if entry.node >= 0 else inputs

    def outputNameToIndex(self, outputName: str) -> int:
        """The number of an input for layer 0, -1 where there is none of that name; 0 for all other layers."""
        if self._inputs is None:
            return 0
        return self._inputs.index(outputName) if outputName in self._inputs else -1


@raises_opencv_errors
class Inspection:
    """The methods of `Net` that run nothing."""

    def __init__(self, net: CaffeNet, source: NetSource) -> None:
        self._net = net
        self._source = source
        self._input_names = list(net.inputs)
        self._entries = [LayerEntry(INPUT_NAME, INPUT_TYPE, -1, tuple(net.inputs)), *_entries_of(net, source)]
        self._registered: dict[str, int] = {}
        self._graph_of_shapes: Graph | None = None

    # -- names and ids

    def empty(self) -> bool:
        """Whether the net has no layers."""
        return len(self._entries) <= 1

    def getLayerNames(self) -> tuple[str, ...]:
        """The layers' names in order, without inputs."""
        return tuple(entry.name for entry in self._entries[1:])

    def getLayerId(self, layer: str) -> int:
        """The id of a layer, -1 where there is none of that name."""
        return next((i for i, entry in enumerate(self._entries) if entry.name == layer), -1)

    def getLayer(self, layerId: int | str) -> Layer:
        """A layer by id or name."""
        entry = self._entry(layerId)
        blobs = tuple(self._as_opencv_blob(entry, i) for i in range(self._blob_count(entry)))
        return Layer(entry, blobs, self._input_names)

    def getLayerTypes(self) -> tuple[str, ...]:
        """Each type that occurs, sorted."""
        return tuple(sorted({entry.type for entry in self._entries}))

    def getLayersCount(self, layerType: str) -> int:
        """How many layers are of a type."""
        return sum(entry.type == layerType for entry in self._entries)

    def getUnconnectedOutLayers(self) -> Ids:
        """The ids of the layers whose first outputs nobody reads; of registered outputs, where there are some."""
        return np.array(self._output_ids(), np.int32)

    def getUnconnectedOutLayersNames(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._entries[i].name for i in self._output_ids())

    def _output_ids(self) -> list[int]:
        if self._registered:
            return [self._registered[name] for name in sorted(self._registered)]
        read = {bottom for layer in self._source.param.layer for bottom in layer.bottom}
        return [i for i, entry in enumerate(self._entries) if i and read.isdisjoint(entry.tops)]

    def _entry(self, layer: int | str) -> LayerEntry:
        """The layer of an id or a name.

        Raises:
            NetError: there is none.
        """
        index = self.getLayerId(layer) if isinstance(layer, str) else int(layer)
        if 0 <= index < len(self._entries):
            return self._entries[index]
        if isinstance(layer, str):
            raise NetError(f'Requested layer "{layer}" not found.{did_you_mean(layer, self.getLayerNames())}')
        raise NetError(f"Layer with requested id={layer!r} not found. The net has {len(self._entries)}, from 0 on.")

    # -- parameters

    def _blob_count(self, entry: LayerEntry) -> int:
        return len(self._net._graph.nodes[entry.node].layer.blobs) if entry.node >= 0 else 0

    def _blob(self, layer: int | str, number: int) -> tuple[LayerEntry, Any]:
        entry = self._entry(layer)
        if not 0 <= number < self._blob_count(entry):
            raise InputError(
                f"Layer {entry.name!r} ({entry.type}) has {self._blob_count(entry)} parameter blobs. "
                f"Got numParam={number!r}, counted from 0."
            )
        return entry, self._net._graph.nodes[entry.node].layer.blobs[number]

    def _as_opencv_blob(self, entry: LayerEntry, number: int) -> FloatArray:
        _, blob = self._blob(entry.name, number)
        values: FloatArray = blob.raw_data().copy()
        if values.ndim > 1:
            return values
        return values.reshape(1, -1) if entry.type == "InnerProduct" else values.reshape(-1, 1)

    # -- shapes

    def getLayersShapes(self, netInputShapes: Any) -> tuple[Ids, tuple[Any, ...], tuple[Any, ...]]:
        """The ids, and for each layer the shapes of its inputs and of its outputs.

        Args:
            netInputShapes: the shape of the input, or one for each.
        """
        shapes = list(self._shapes(netInputShapes))
        ids = np.arange(len(shapes), dtype=np.int32)
        bottoms, tops = (
            tuple(tuple(np.array(shape, np.int32) for shape in pair[side]) for pair in shapes) for side in (0, 1)
        )
        return ids, bottoms, tops

    def _shapes(self, input_shapes: Any) -> Iterator[tuple[list[Shape], list[Shape]]]:
        """By layer the shapes of bottoms and tops: on a graph of its own, so that the net's blobs stay as they are."""
        if self._graph_of_shapes is None:
            self._graph_of_shapes = build_graph(self._source, TEST)
        graph = self._graph_of_shapes
        for blob, shape in zip(graph.inputs, self._checked_shapes(input_shapes)):
            graph.blobs[blob].reshape(*shape)
        inputs = [graph.blobs[i].shape for i in graph.inputs]
        for index, node in enumerate(graph.nodes):
            if node.type != "Input":
                graph.reshape_node(index)
        yield inputs, inputs
        for entry in self._entries[1:]:
            node = graph.nodes[entry.node]
            bottoms = [blob.shape for blob in graph.bottoms(node)]
            tops = [graph.blobs[graph.blob_names.index(top)].shape for top in entry.tops]
            if entry.type == "Identity":
                yield tops, tops
            else:
                yield bottoms, [self._largest_shape(node, bottoms)] if node.type == "DetectionOutput" else tops

    def _checked_shapes(self, given: Any) -> list[Shape]:
        shapes = list(given)
        if shapes and np.ndim(shapes[0]) == 0:
            shapes = [shapes]
        if len(shapes) != len(self._input_names):
            raise InputError(f"Expected one shape for each of the inputs {self._input_names!r}, got {given!r}.")
        return [tuple(int(extent) for extent in shape) for shape in shapes]

    @staticmethod
    def _largest_shape(node: Any, bottoms: list[Shape]) -> Shape:
        """DetectionOutput's with as many detections as it can keep; how many there are is known after a forward."""
        return (1, 1, node.layer.layer_param.detection_output_param.keep_top_k * bottoms[0][0], 7)

    # -- figures

    def getFLOPS(self, *args: Any) -> int:
        """The operations of a forward, or of one layer: `getFLOPS(shapes)`, `getFLOPS(layerId, shapes)`."""
        only, shapes = _layer_and_shapes("getFLOPS", args)
        return sum(self._flops(i, *pair) for i, pair in enumerate(self._shapes(shapes)) if only in (None, i))

    def _flops(self, index: int, bottoms: list[Shape], tops: list[Shape]) -> int:
        entry = self._entries[index]
        if entry.node < 0 or entry.type == "Identity":
            return 0
        return layer_flops(self._net._graph.nodes[entry.node].layer, bottoms, tops)

    def getMemoryConsumption(self, *args: Any) -> tuple[int, int]:
        """Bytes of weights and of outputs of the net or of one layer: `(shapes)`, `(layerId, shapes)`."""
        only, shapes = _layer_and_shapes("getMemoryConsumption", args)
        weights = outputs = 0
        for index, (_, tops) in enumerate(self._shapes(shapes)):
            entry = self._entries[index]
            if only in (None, index):
                outputs += 4 * sum(map(math.prod, tops))
                weights += 4 * sum(self._blob(index, i)[1].count for i in range(self._blob_count(entry)))
        return weights, outputs

    # -- drawing

    def dump(self) -> str:
        """The net in Graphviz's language, with the shapes of the last forward."""
        lines = ["digraph G {"]
        maker: dict[str, str] = dict.fromkeys(self._entries[0].tops, INPUT_NAME)
        edges = []
        for entry in self._entries[1:]:
            lines.append(f'\t"{entry.name}" [label="{self._label(entry)}" style=filled shape=box]')
            node = self._net._graph.nodes[entry.node]
            bottoms = entry.tops if entry.type == "Identity" else self._source_bottoms(node.name)
            edges += [f'\t"{maker[bottom]}" -> "{entry.name}"' for bottom in bottoms]
            if entry.type != "Identity":
                maker.update(dict.fromkeys(entry.tops, entry.name))
        return "\n".join([*lines, "", *edges, "}", ""])

    def _source_bottoms(self, layer: str) -> Sequence[str]:
        return next(list(param.bottom) for param in self._source.param.layer if param.name == layer)

    def _label(self, entry: LayerEntry) -> str:
        node = self._net._graph.nodes[entry.node]
        parts = [entry.name, "\\n", entry.type, "\\n"]
        for message in ("convolution_param", "pooling_param"):
            if entry.type != "Identity" and node.layer.layer_param.HasField(message):
                param = getattr(node.layer.layer_param, message)
                for field in ("kernel_size", "kernel_h", "kernel_w", "stride", "dilation", "pad", "group", "pool"):
                    value = getattr(param, field, None)
                    if value and any(descriptor.name == field for descriptor, _ in param.ListFields()):
                        extents = [value] if isinstance(value, int) else list(value)
                        shown = (
                            ["MAX", "AVE", "STOCHASTIC"][value] if field == "pool" else " x ".join(map(str, extents))
                        )
                        parts += [f"{field} : {shown}", "\\l"]
        shape = self._net.blobs[entry.tops[0]].shape if entry.tops else ()
        return "".join([*parts, "output: ", " x ".join(map(str, shape)), "\\l"])

    def dumpToFile(self, path: str) -> None:
        """Writes `dump()` to a file."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.dump())


def _entries_of(net: CaffeNet, source: NetSource) -> Iterator[LayerEntry]:
    index_of = {node.name: i for i, node in enumerate(net._graph.nodes)}
    for param in source.param.layer:
        if param.type != "Input":
            type_name = TYPES_OF_OPENCV.get(param.type, param.type)
            yield LayerEntry(param.name, type_name, index_of[param.name], tuple(net.top_names[param.name]))


def _layer_and_shapes(method: str, args: tuple[Any, ...]) -> tuple[int | None, Any]:
    if len(args) == 1:
        return None, args[0]
    if len(args) == 2 and np.ndim(args[0]) == 0:
        return int(args[0]), args[1]
    raise InputError(f"Expected {method}(shapes) or {method}(layerId, shapes), got {args!r}.")
