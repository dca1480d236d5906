"""A whole net as one ONNX model whose inputs and outputs have the blobs' names.

net ─→ NetSource ─→ Graph at one batch, or at two of which the nodes must be equal ─→ LoweredSegment ─→ nodes
nodes ─→ what depends on parameters alone is computed ─→ names ─→ preprocessing in front ─→ model and its arrays
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.engines.segment import LoweredSegment, SegmentNotLowerable
from pycaffe.errors import ExportError, NetError
from pycaffe.export.graph_folding import fold_constants, remove_identities
from pycaffe.export.source import batched_inputs, build_sharing, source_of, with_batch
from pycaffe.graph import Graph
from pycaffe.net import Net
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.schema import LayerParameter, NetParameter

__all__ = ["Extent", "LoweredNet", "lower_net"]

Array = npt.NDArray[Any]
Extent = int | str  # of an axis: a number, or a name where it is open
BATCH = "N"
PROBES = (3, 5)  # batches at which a net must lower to the same nodes; odd, so that no constant is met by chance


@dataclass
class LoweredNet:
    """An ONNX graph in parts.

    Attributes:
        nodes: NodeProtos in order.
        arrays: initializers by name.
        inputs: shapes by blob name, in the order of the prototxt.
        outputs: shapes by the name in the file, in the order of `Net.outputs`.
        output_blobs: the blob's name, by the name in the file.
    """

    nodes: list[Any]
    arrays: dict[str, Array]
    inputs: dict[str, tuple[Extent, ...]]
    outputs: dict[str, tuple[Extent, ...]]
    output_blobs: dict[str, str]


@dataclass
class _Lowered:
    """A graph and its lowering; the last layers of the graph are the probes of the outputs."""

    graph: Graph
    segment: LoweredSegment
    nodes: list[Any]
    constants: list[Any]
    probes: dict[str, int]  # output blob's name -> id of the top of its probe

    def shape(self, blob: str) -> tuple[int, ...]:
        return self.graph.blobs[self.graph.blob_names.index(blob)].shape


def lower_net(net: Net, dynamic_batch: bool) -> LoweredNet:
    """Lowers a TEST-phase net.

    Raises:
        ExportError: a layer has no ONNX form, or bakes the batch in where it is to be open.
    """
    graph = net._graph
    source, outputs = _with_probes(source_of(graph), graph)
    batch, batched = batched_inputs(graph)
    if not dynamic_batch or batch is None:
        lowered = [_lower(source, graph, outputs)]
    else:
        lowered = [_lower_at(extent, batch, batched, source, graph, outputs) for extent in PROBES]
        _refuse_baked_batch(lowered[0], lowered[1], batch)
    return _assemble(lowered, net.inputs)


def _with_probes(source: NetSource, graph: Graph) -> tuple[NetSource, dict[str, str]]:
    """Adds a layer that does nothing behind each output, so that an output which shares memory has a value as well.

    An input that no layer reads is an output in Caffe; it has no computation and stays an input here.

    Returns:
        The source, and by output the name of its probe's top.
    """
    written = {i for node in graph.nodes if node.type != "Input" for i in node.top}
    probed: Any = NetParameter()
    probed.CopyFrom(source.param)
    tops: dict[str, str] = {}
    taken = {*graph.blob_names, *(node.name for node in graph.nodes)}
    for i in graph.outputs:
        if i in written:
            blob = graph.blob_names[i]
            top = _free(f"{blob}/output", taken)
            probed.layer.append(LayerParameter(name=top, type="Dropout", bottom=[blob], top=[top]))
            tops[blob] = top
    return dataclasses.replace(source, param=probed), tops


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _lower_at(
    extent: int, batch: int, batched: list[str], source: NetSource, like: Graph, outputs: dict[str, str]
) -> _Lowered:
    try:
        return _lower(with_batch(source, batched, extent), like, outputs)
    except ExportError:
        raise
    except NetError as error:
        raise ExportError(
            f"The net takes batch {batch}, and not {extent}: {error} "
            f"dynamic_batch=False exports this net for batch {batch} only."
        ) from error


def _lower(source: NetSource, like: Graph, outputs: dict[str, str]) -> _Lowered:
    graph = build_sharing(source, like, extra=len(outputs))
    try:
        segment = LoweredSegment(graph, 0, len(graph.nodes) - 1)
    except SegmentNotLowerable as error:
        node = graph.nodes[error.index]
        raise ExportError(
            f"Cannot export layer {node.name!r} of type {node.type!r} to ONNX: "
            f"{error.reason.removeprefix(f'{node.type}: ')}. In {node.where}, layer {node.name!r}."
        ) from error
    model = segment.segment(()).model
    external = {name for name, _, _ in segment.parameters}
    constants = [tensor for tensor in model.graph.initializer if tensor.name not in external]
    ids = {blob: graph.blob_names.index(top) for blob, top in outputs.items()}
    return _Lowered(graph, segment, list(model.graph.node), constants, ids)


def _refuse_baked_batch(first: _Lowered, second: _Lowered, batch: int) -> None:
    """Raises ExportError where two lowerings differ in more than shapes; names the first layer that does."""
    for mine, other in ((first.nodes, second.nodes), (first.constants, second.constants)):
        for a, b in zip([*mine, None], [*other, None]):
            if a is None or b is None or a.SerializeToString() != b.SerializeToString():
                if a is None and b is None:
                    break
                layer = (a if a is not None else b).name.rpartition("/")[0]
                node = next((node for node in first.graph.nodes if node.name == layer), None)
                place = f"Layer {layer!r} of type {node.type!r}" if node else f"Layer {layer!r}"
                where = f" In {node.where}, layer {layer!r}." if node else ""
                raise ExportError(
                    f"{place} has an ONNX form for one batch only.{where} "
                    f"dynamic_batch=False exports this net for batch {batch} only."
                )


# -- from nodes to a model


def _assemble(lowered: Sequence[_Lowered], inputs: list[str]) -> LoweredNet:
    from onnx import numpy_helper

    first = lowered[0]
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in first.constants}
    for name, storage, shape in first.segment.parameters:
        arrays[name] = storage.array()[: int(np.prod(shape))].reshape(shape)
    values = [first.segment.made[i] for i in first.probes.values()]
    nodes, values = remove_identities(first.nodes, values)
    nodes, arrays = fold_constants(nodes, arrays, values)
    names = {value: first.graph.blob_names[i] for value, i in first.segment.inputs}
    blobs = list(first.probes)
    output_names = [_output_name(first.graph, blob, inputs) for blob in blobs]
    nodes, arrays = _rename(first, nodes, arrays, names, dict(zip(output_names, values)))
    return LoweredNet(
        nodes,
        arrays,
        {name: _extents([item.shape(name) for item in lowered]) for name in inputs},
        {name: _extents([item.shape(blob) for item in lowered]) for name, blob in zip(output_names, blobs)},
        dict(zip(output_names, blobs)),
    )


def _output_name(graph: Graph, blob: str, inputs: list[str]) -> str:
    """The blob's name; that of the layer which works on it in place where the blob is an input as well."""
    if blob not in inputs:
        return blob
    i = graph.blob_names.index(blob)
    writer = [node.name for node in graph.nodes if i in node.top and i in node.bottom][-1]
    return _free(writer, set(graph.blob_names))


def _rename(
    lowered: _Lowered, nodes: list[Any], arrays: dict[str, Array], inputs: dict[str, str], outputs: dict[str, str]
) -> tuple[list[Any], dict[str, Array]]:
    """Gives values the names of their blobs; inputs and outputs first, then what is made between.

    An output whose value is an input, a parameter or another output's gets an Identity of its own.
    """
    from onnx import helper

    computed = {name for node in nodes for name in node.output}
    names = dict(inputs)
    copies = []
    for name, value in outputs.items():
        if value in computed and value not in names:
            names[value] = name
        else:
            copies.append((value, name))
    input_blobs = {lowered.graph.blob_names[i] for i in lowered.graph.inputs}
    taken = {*names.values(), *outputs, *input_blobs}
    for i, value in lowered.segment.made.items():
        blob = lowered.graph.blob_names[i]
        if value in computed and value not in names and blob not in taken:
            names[value] = blob
            taken.add(blob)
    for value in [*arrays, *sorted(computed)]:
        if value not in names:
            names[value] = _free(value, taken)
    for node in nodes:
        node.input[:] = [names[name] if name else "" for name in node.input]
        node.output[:] = [names[name] if name else "" for name in node.output]
    nodes += [helper.make_node("Identity", [names[value]], [name], name=f"{name}/Identity") for value, name in copies]
    return nodes, {names[name]: array for name, array in arrays.items()}


def _extents(shapes: Sequence[tuple[int, ...]]) -> tuple[Extent, ...]:
    """A shape from those at the probed batches: `N` where an extent is the batch, `2*N` where it is a multiple."""
    if len(shapes) == 1:
        return shapes[0]
    return tuple(_extent(*pair) for pair in zip(*shapes))


def _extent(first: int, second: int) -> Extent:
    if first == second:
        return first
    step, rest = divmod(second - first, PROBES[1] - PROBES[0])
    start = first - step * PROBES[0]
    if rest:
        return "?"
    name = BATCH if step == 1 else f"{step}*{BATCH}"
    return name if start == 0 else f"{name}{start:+d}"
