"""A run of layers lowered to one ONNX model: which blobs go in, which come out, which parameters it holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from pycaffe.blob import Shape, Storage
from pycaffe.graph import Graph
from pycaffe.layers import Lowering, NotLowerable
from pycaffe.layers._lowering import OPSET

__all__ = ["LoweredSegment", "Segment", "SegmentNotLowerable", "lower_segment", "shapes_for_batch"]

IR_VERSION = 8  # the one that opset 17 came with
BATCH = "N"  # the name of an open batch extent


class SegmentNotLowerable(Exception):
    """Layer `index` of the graph has no ONNX form with its present parameters and shapes."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index = index
        self.reason = reason


@dataclass
class Segment:
    """An ONNX model of layers `start` to `end` and how it hangs together with blobs.

    Attributes:
        inputs: (name, blob id) of what the segment reads and did not make.
        outputs: (name, blob id) of the values that come out.
        parameters: (name, storage, shape) of the initializers, which live outside the model.
        shared: indices of layers whose tops are the bottom's memory.
        batch: the first extent of all inputs; None where they differ or the model is open for any.
    """

    start: int
    end: int
    model: Any
    inputs: list[tuple[str, int]]
    outputs: list[tuple[str, int]]
    parameters: list[tuple[str, Storage, tuple[int, ...]]]
    shared: list[int]
    batch: int | None


def lower_segment(graph: Graph, start: int, end: int, wanted: Collection[int] | None = None) -> Segment:
    """Lowers layers `start` to `end`, whose blobs must have the shapes that they will run with.

    Args:
        graph: the net.
        start: the first layer.
        end: the last layer, included.
        wanted: ids of blobs to come out, of those in `LoweredSegment.made`; all when None.

    Raises:
        SegmentNotLowerable: names the first layer that cannot be lowered.
    """
    return LoweredSegment(graph, start, end).segment(wanted)


class LoweredSegment:
    """Layers `start` to `end` as ONNX nodes, from which models with different outputs are made.

    Attributes:
        made: blob id -> value, of the blobs that the segment computes; one blob for each memory.
        symbolic_batch: set it to make models whose inputs' first extent is open.
        inputs, parameters, shared: as in `Segment`.

    Raises:
        SegmentNotLowerable: names the first layer that cannot be lowered.
    """

    def __init__(self, graph: Graph, start: int, end: int, shapes: Mapping[int, Shape] | None = None) -> None:
        self.graph = graph
        self.start = start
        self.end = end
        self.shared: list[int] = []
        self.symbolic_batch = False
        self._shapes = shapes if shapes is not None else dict(enumerate(blob.shape for blob in graph.blobs))
        self._g = Lowering()
        self._value: dict[int, str] = {}  # blob id -> the name of its present value
        self._inputs: dict[int, str] = {}
        self._made: dict[int, str] = {}
        self._parameters: dict[tuple[int, tuple[int, ...]], tuple[str, Storage, tuple[int, ...]]] = {}
        for index in range(start, end + 1):
            self._lower_node(index)
        sharing = {top for index in self.shared for top in graph.nodes[index].top}
        self.made = {blob: name for blob, name in self._made.items() if blob not in sharing}
        self.inputs = [(name, blob) for blob, name in self._inputs.items()]
        # onnxruntime drops initializers that nothing reads
        used = {name for node in self._g.nodes for name in node.input} | set(self._made.values())
        self.parameters = [parameter for parameter in self._parameters.values() if parameter[0] in used]

    @property
    def batch(self) -> int | None:
        """The first extent of all inputs, where they have a common one."""
        firsts = {self._shapes[blob][:1] for _, blob in self.inputs}
        return next(iter(firsts))[0] if len(firsts) == 1 and firsts != {()} else None

    def segment(self, wanted: Collection[int] | None = None) -> Segment:
        """The model whose outputs are the blobs `wanted`, or all that the segment makes."""
        outputs = [(f"out/{i}/{self.graph.blob_names[i]}", i) for i in self.made if wanted is None or i in wanted]
        model = self._model(outputs)
        batch = None if self.symbolic_batch else self.batch
        return Segment(self.start, self.end, model, self.inputs, outputs, self.parameters, self.shared, batch)

    def _lower_node(self, index: int) -> None:
        node = self.graph.nodes[index]
        if node.type == "Input":
            return
        self._g.prefix = node.name
        bottom = [self._read(i) for i in node.bottom]
        params = [
            self._parameter(node.name, i, blob.data_storage, blob.shape) for i, blob in enumerate(node.layer.blobs)
        ]
        try:
            tops = node.layer.lower(self._g, bottom, params)
        except NotLowerable as error:
            raise SegmentNotLowerable(index, str(error)) from error
        for blob, name in zip(node.top, tops):
            self._value[blob] = self._made[blob] = name
            if not node.layer.shares_data:
                self._write_through(blob, name)
        if node.layer.shares_data:
            self.shared.append(index)

    def _write_through(self, blob: int, name: str) -> None:
        """Gives blobs over the memory of `blob` its value: in-place work on a Flatten's top is seen in its bottom."""
        blobs = self.graph.blobs
        for other in [i for i in self._value if i != blob and blobs[i].data_storage is blobs[blob].data_storage]:
            same = self._shapes[other] == self._shapes[blob]
            value = name if same else self._g.reshape(name, [-1, *self._shapes[other][1:]])
            self._value[other] = self._made[other] = value

    def _read(self, blob: int) -> str:
        if blob not in self._value:
            self._value[blob] = self._inputs[blob] = f"blob/{self.graph.blob_names[blob]}"
        return self._value[blob]

    def _parameter(self, layer: str, index: int, storage: Storage, shape: tuple[int, ...]) -> str:
        key = (id(storage), shape)
        if key not in self._parameters:
            self._parameters[key] = (f"{layer}/param{index}", storage, shape)
        return self._parameters[key][0]

    def _model(self, outputs: list[tuple[str, int]]) -> Any:
        from onnx import TensorProto, helper

        # An output of its own for each blob: two blobs may hold one value, and a value may be an input as it is.
        named = [helper.make_node("Identity", [self.made[i]], [name], name=name) for name, i in outputs]
        graph = helper.make_graph(
            [*self._g.nodes, *named],
            self.graph.name or "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, self._extents(i)) for name, i in self.inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name, _ in outputs],
            [*self._g.initializers, *(_external(name, shape) for name, _, shape in self.parameters)],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _extents(self, blob: int) -> list[int | str]:
        shape = self._shapes[blob]
        return [BATCH, *shape[1:]] if self.symbolic_batch else list(shape)

    def same_nodes(self, other: LoweredSegment) -> bool:
        """Whether two lowerings differ in nothing but the shapes of their inputs."""
        return (
            [node.SerializeToString() for node in self._g.nodes]
            == [node.SerializeToString() for node in other._g.nodes]
            and [c.SerializeToString() for c in self._g.initializers]
            == [c.SerializeToString() for c in other._g.initializers]
            and self.made == other.made
            and self.inputs == other.inputs
        )


def shapes_for_batch(graph: Graph, start: int, end: int, batch: int) -> dict[int, Shape]:
    """The shapes that a segment's blobs would have with another batch extent; the blobs keep theirs.

    The layers' own notion of their shapes is changed: `Graph.reshape_node` puts it right again.

    Raises:
        NetError: a layer refuses the shapes.
    """
    shapes = dict(enumerate(blob.shape for blob in graph.blobs))
    made: set[int] = set()
    for node in graph.nodes[start : end + 1]:
        if node.type == "Input":
            shapes.update({i: (batch, *shapes[i][1:]) for i in node.top})
            made.update(node.top)
            continue
        for i in node.bottom:
            if i not in made:
                shapes[i] = (batch, *shapes[i][1:])
                made.add(i)
        layer = node.layer
        layer.bottom_shapes = [shapes[i] for i in node.bottom]
        layer.top_shapes = layer.reshape(layer.bottom_shapes)
        shapes.update(zip(node.top, layer.top_shapes))
        made.update(node.top)
    return shapes


def _external(name: str, shape: tuple[int, ...]) -> Any:
    """An initializer whose values the session is given in memory."""
    from onnx import TensorProto

    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="memory")
    return tensor
