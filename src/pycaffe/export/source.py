"""The net to be exported, as a NetSource from which graphs at any batch are built without disturbing the net."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from pycaffe.errors import ExportError, ShapeError, UnknownLayerType
from pycaffe.graph import Graph, build_graph
from pycaffe.layers import HostLayer, layer_class
from pycaffe.net import TEST, Net
from pycaffe.proto.filter import filter_net
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.prototxt import load_net
from pycaffe.proto.schema import NetParameter

__all__ = ["batched_inputs", "build_sharing", "exportable_net", "refuse_host_layers", "source_of", "with_batch"]

Path = str | os.PathLike[str]


def exportable_net(model: Path, weights: Path) -> Net:
    """The TEST-phase net of a prototxt and its weights.

    Raises:
        ExportError: it holds a layer that no file can express; said before the layer opens its data.
    """
    source = load_net(model)
    tested = dataclasses.replace(source, param=NetParameter())
    tested.param.CopyFrom(source.param)
    tested.param.state.phase = TEST
    refuse_host_layers(filter_net(tested), "to ONNX")
    return Net(source, TEST, weights=weights)


def refuse_host_layers(source: NetSource, target: str) -> None:
    """Raises ExportError for the first layer that is about the world outside of the net."""
    for index, layer in enumerate(source.param.layer):
        try:
            cls = layer_class(layer.type)
        except UnknownLayerType:
            continue  # building the net says it, with the types that there are
        if issubclass(cls, HostLayer):
            reads = cls.exact_num_bottom_blobs == 0 or not layer.bottom
            hint = (
                "Give the net's deploy form, which has an Input layer in its place."
                if reads
                else "Take the layer out of the prototxt, or export the net before it and the net after it."
            )
            raise ExportError(
                f"Cannot export layer {layer.name!r} of type {layer.type!r} {target}: it runs in Python on the host. "
                f"In {source.where(index)}. {hint}"
            )


def source_of(graph: Graph) -> NetSource:
    """The net that a graph was built from, filtered and with Splits, its Input layers with the blobs' present shapes.

    A layer has a phase of its own only where that is not the net's.
    """
    param = NetParameter(name=graph.name)
    lines = []
    for node in graph.nodes:
        layer = param.layer.add()
        layer.CopyFrom(node.layer.layer_param)
        for field in ("include", "exclude", "blobs", "loss_weight"):  # a weighted top would be split once more
            layer.ClearField(field)
        if layer.phase == graph.phase:
            layer.ClearField("phase")
        if node.type == "Input":
            layer.input_param.ClearField("shape")
            for blob in graph.tops(node):
                layer.input_param.shape.add().dim.extend(blob.shape)
        lines.append(int(node.where.rpartition(":")[2]))
    filename = graph.nodes[0].where.rpartition(":")[0] if graph.nodes else ""
    return NetSource(param, "" if filename == "(memory)" else filename, lines, dialect=graph.dialect)


def batched_inputs(graph: Graph) -> tuple[int | None, list[str]]:
    """The batch and the inputs that have it: those whose first extent is the first input's. None without any."""
    shapes = {graph.blob_names[i]: graph.blobs[i].shape for i in graph.inputs}
    batch = next((shape[0] for shape in shapes.values() if shape), None)
    return batch, [name for name, shape in shapes.items() if shape and shape[0] == batch]


def with_batch(source: NetSource, inputs: list[str], batch: int) -> NetSource:
    """A copy in which these inputs have another first extent."""
    param: Any = NetParameter()
    param.CopyFrom(source.param)
    for layer in param.layer:
        if layer.type == "Input":
            for top, shape in zip(layer.top, layer.input_param.shape):
                if top in inputs:
                    shape.dim[0] = batch
    return dataclasses.replace(source, param=param)


def build_sharing(source: NetSource, like: Graph, extra: int = 0) -> Graph:
    """A graph of its own over the parameters of `like`, which has the same layers less the last `extra`.

    Raises:
        CaffeError: a layer refuses the shapes that `source` gives to its inputs, or would need other parameters.
    """
    graph = build_graph(source, like.phase)
    nodes = graph.nodes[: len(graph.nodes) - extra]
    if [node.name for node in nodes] != [node.name for node in like.nodes]:
        raise ExportError(f"The net {like.name!r} cannot be built again from its layers.")
    for mine, theirs in zip(nodes, like.nodes):
        for index, (blob, other) in enumerate(zip(mine.layer.blobs, theirs.layer.blobs)):
            if blob.shape != other.shape:
                with theirs.located_errors():
                    raise ShapeError(f"Param {index} has shape {other.shape!r}, and would need {blob.shape!r}.")
            blob.share_data(other)
    return graph
