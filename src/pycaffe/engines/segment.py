"""A run of layers lowered to one ONNX model: which blobs go in, which come out, which parameters it holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pycaffe.blob import Storage
from pycaffe.graph import Graph
from pycaffe.layers import Lowering
from pycaffe.layers._lowering import OPSET

__all__ = ["Segment", "SegmentNotLowerable", "lower_segment"]

IR_VERSION = 8  # the one that opset 17 came with


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
        outputs: (name, blob id) of the values that the blobs hold after it.
        parameters: (name, storage, shape) of the initializers, which live outside the model.
        shared: indices of layers whose tops are the bottom's memory.
    """

    start: int
    end: int
    model: Any
    inputs: list[tuple[str, int]]
    outputs: list[tuple[str, int]]
    parameters: list[tuple[str, Storage, tuple[int, ...]]]
    shared: list[int]


def lower_segment(graph: Graph, start: int, end: int, wanted: frozenset[int] | None = None) -> Segment:
    """Lowers layers `start` to `end`, whose blobs must have the shapes that they will run with.

    Args:
        graph: the net.
        start: the first layer.
        end: the last layer, included.
        wanted: blob ids to come out; all that the segment makes when None.

    Raises:
        SegmentNotLowerable: names the first layer that cannot be lowered.
    """
    return _SegmentBuilder(graph, start, end).build(wanted)


class _SegmentBuilder:
    def __init__(self, graph: Graph, start: int, end: int) -> None:
        self.graph = graph
        self.start = start
        self.end = end
        self.g = Lowering()
        self.value: dict[int, str] = {}  # blob id -> the name of its present value
        self.inputs: dict[int, str] = {}
        self.made: dict[int, str] = {}
        self.shared: list[int] = []
        self.parameters: dict[tuple[int, tuple[int, ...]], tuple[str, Storage, tuple[int, ...]]] = {}

    def build(self, wanted: frozenset[int] | None) -> Segment:
        for index in range(self.start, self.end + 1):
            self._lower_node(index)
        sharing = {top for index in self.shared for top in self.graph.nodes[index].top}
        chosen = [i for i in self.made if (i in wanted if wanted is not None else i not in sharing)]
        outputs = [(self._named_output(i), i) for i in chosen]
        model = self._model(outputs)
        return Segment(
            self.start,
            self.end,
            model,
            [(name, i) for i, name in self.inputs.items()],
            outputs,
            list(self.parameters.values()),
            self.shared,
        )

    def _lower_node(self, index: int) -> None:
        from pycaffe.layers import NotLowerable

        node = self.graph.nodes[index]
        if node.type == "Input":
            return
        self.g.prefix = node.name
        bottom = [self._value(i) for i in node.bottom]
        params = [
            self._parameter(node.name, i, blob.data_storage, blob.shape) for i, blob in enumerate(node.layer.blobs)
        ]
        try:
            tops = node.layer.lower(self.g, bottom, params)
        except NotLowerable as error:
            raise SegmentNotLowerable(index, str(error)) from error
        for blob, name in zip(node.top, tops):
            self.value[blob] = self.made[blob] = name
            if not node.layer.shares_data:
                self._write_through(blob, name)
        if node.layer.shares_data:
            self.shared.append(index)

    def _write_through(self, blob: int, name: str) -> None:
        """Gives blobs over the memory of `blob` its value: in-place work on a Flatten's top is seen in its bottom."""
        blobs = self.graph.blobs
        for other in [i for i in self.value if i != blob and blobs[i].data_storage is blobs[blob].data_storage]:
            same = blobs[other].shape == blobs[blob].shape
            value = name if same else self.g.reshape(name, [-1, *blobs[other].shape[1:]])
            self.value[other] = self.made[other] = value

    def _value(self, blob: int) -> str:
        if blob not in self.value:
            self.value[blob] = self.inputs[blob] = f"blob/{self.graph.blob_names[blob]}"
        return self.value[blob]

    def _parameter(self, layer: str, index: int, storage: Storage, shape: tuple[int, ...]) -> str:
        key = (id(storage), shape)
        if key not in self.parameters:
            self.parameters[key] = (f"{layer}/param{index}", storage, shape)
        return self.parameters[key][0]

    def _named_output(self, blob: int) -> str:
        """An output of its own for each blob: two blobs may hold one value, and a value may be an input as it is."""
        name = f"out/{blob}/{self.graph.blob_names[blob]}"
        from onnx import helper

        self.g.nodes.append(helper.make_node("Identity", [self.made[blob]], [name], name=name))
        return name

    def _model(self, outputs: list[tuple[str, int]]) -> Any:
        from onnx import TensorProto, helper

        initializers = [*self.g.initializers, *(_external(name, shape) for name, _, shape in self.parameters.values())]
        graph = helper.make_graph(
            self.g.nodes,
            self.graph.name or "net",
            [self._info(name, i) for i, name in self.inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name, _ in outputs],
            initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)

    def _info(self, name: str, blob: int) -> Any:
        from onnx import TensorProto, helper

        return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(self.graph.blobs[blob].shape))


def _external(name: str, shape: tuple[int, ...]) -> Any:
    """An initializer whose values the session is given in memory."""
    from onnx import TensorProto

    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="memory")
    return tensor
