"""From a NetParameter to a Graph: layers in order, the blobs between them, what needs backward (net.cpp, Init).

`build_graph` takes the net as its file has it and does, in Caffe's order: set the state, filter, insert splits, then
layer by layer: create, connect bottoms and tops, check counts, set up, reshape, weigh losses, append parameters. The
result is frozen: shapes and values change later, connections never.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.blob import Blob
from pycaffe.errors import CaffeError, DuplicateTop, LayerError, NetError, ShapeError, UnknownBottom, did_you_mean
from pycaffe.layers import Layer, create_layer
from pycaffe.proto.dialect import resolve_dialect
from pycaffe.proto.filter import filter_net
from pycaffe.proto.insert_splits import insert_splits
from pycaffe.proto.net_source import NetSource

__all__ = ["Graph", "LocatedErrors", "Node", "Parameter", "build_graph", "check_range"]

logger = logging.getLogger("pycaffe.graph")


@dataclass(frozen=True)
class Node:
    """One layer and its connections.

    Attributes:
        bottom, top: blob ids; an in-place layer has the same id in both.
        loss_weights: one for each top.
        bottom_need_backward: one for each bottom, whether backward computes its diff.
        need_backward: whether backward runs the layer at all.
        where: `file:line`, for errors.
    """

    layer: Layer
    name: str
    type: str
    bottom: tuple[int, ...]
    top: tuple[int, ...]
    loss_weights: tuple[float, ...]
    bottom_need_backward: tuple[bool, ...]
    need_backward: bool
    where: str

    @functools.cached_property
    def in_place(self) -> bool:
        """Whether a top is one of the bottoms."""
        return any(blob in self.bottom for blob in self.top)

    def located_errors(self) -> LocatedErrors:
        """Adds file, line and layer to an error of ours that is raised inside."""
        return LocatedErrors(self.where, self.name)


@dataclass(frozen=True)
class Parameter:
    """A learnable blob of a layer, with the multipliers a solver uses (ParamSpec)."""

    blob: Blob
    layer: int
    index: int
    owner: int | None
    lr_mult: float
    decay_mult: float
    display_name: str


@dataclass(frozen=True)
class Graph:
    """A net's structure: frozen; blobs and layers hold the values.

    Attributes:
        blobs, blob_names: by blob id, in order of creation, Split blobs included.
        inputs: blob ids of the tops of Input layers, in file order.
        outputs: blob ids that no layer reads, sorted by name.
        loss_weights: by blob id.
        dialect: whose meaning types have that forks use differently.
        parameters: every layer's parameters in order; shared ones name their owner.
    """

    name: str
    phase: int
    nodes: tuple[Node, ...]
    blobs: tuple[Blob, ...]
    blob_names: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    loss_weights: tuple[float, ...]
    parameters: tuple[Parameter, ...]
    force_backward: bool
    debug_info: bool
    dialect: str

    def bottoms(self, node: Node) -> list[Blob]:
        """The blobs that a layer reads."""
        return [self.blobs[i] for i in node.bottom]

    def tops(self, node: Node) -> list[Blob]:
        """The blobs that a layer makes."""
        return [self.blobs[i] for i in node.top]

    def reshape_node(self, index: int) -> None:
        """Gives a layer's tops their shapes for the bottoms' present shapes."""
        node = self.nodes[index]
        with node.located_errors():
            node.layer.reshape_blobs(self.bottoms(node), self.tops(node))


class LocatedErrors:
    """Adds file, line and layer to an error of ours. No generator, since each forward enters two for each layer."""

    __slots__ = ("name", "where")

    def __init__(self, where: str, name: str) -> None:
        self.where = where
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, CaffeError) and not getattr(error, "located", False):
            # The same object: a user's layer may have raised it.
            text = str(error)
            end = "" if text.endswith((".", "?", ")")) else "."
            error.args = (f"{text}{end} In {self.where}, layer {self.name!r}.",)
            error.located = True  # type: ignore[attr-defined]


def build_graph(source: NetSource, phase: int, level: int = 0, stages: Sequence[str] = ()) -> Graph:
    """Builds the graph of the net as it is in one state.

    Args:
        source: the upgraded net with its file's name and the line of each layer.
        phase: 0 TRAIN or 1 TEST.
        level: of the NetState.
        stages: of the NetState, beside those that the file states.

    Raises:
        UnknownLayerType, UnknownBottom, DuplicateTop, LayerError, ShapeError: with file, line and layer.
        InputError: there is no such dialect as the source's.
    """
    param = type(source.param)()
    param.CopyFrom(source.param)
    param.state.phase = phase
    param.state.level = level
    param.state.stage.extend(stages)  # the stages asked for join those that the file states
    source = insert_splits(filter_net(dataclasses.replace(source, param=param)))
    return _Builder(source, phase).build()


class _Builder:
    """Holds what Net::Init keeps in locals while it goes through the layers."""

    def __init__(self, source: NetSource, phase: int) -> None:
        self.source = source
        self.phase = phase
        self.dialect = resolve_dialect(source.dialect)
        self.nodes: list[Node] = []
        self.blobs: list[Blob] = []
        self.blob_names: list[str] = []
        self.blob_need_backward: list[bool] = []
        self.loss_weights: list[float] = []
        self.index_of: dict[str, int] = {}
        self.available: set[str] = set()
        self.inputs: list[int] = []
        self.parameters: list[Parameter] = []
        self.parameter_index: dict[str, int] = {}

    def build(self) -> Graph:
        param = self.source.param
        for index, layer_param in enumerate(param.layer):
            if not layer_param.HasField("phase"):
                layer_param.phase = self.phase
            where = f"{self.source.filename or '(memory)'}:{self.source.line(index)}"
            with LocatedErrors(where, layer_param.name):
                self.nodes.append(self._add_layer(layer_param, where))
        _prune_backward(self.nodes, self.blob_names)
        if param.force_backward:
            _force_backward(self.nodes)
        self._share_parameters()
        return Graph(
            name=param.name,
            phase=self.phase,
            nodes=tuple(self.nodes),
            blobs=tuple(self.blobs),
            blob_names=tuple(self.blob_names),
            inputs=tuple(self.inputs),
            outputs=tuple(self.index_of[name] for name in sorted(self.available)),
            loss_weights=tuple(self.loss_weights),
            parameters=tuple(self.parameters),
            force_backward=param.force_backward,
            debug_info=param.debug_info,
            dialect=self.dialect,
        )

    # -- one layer

    def _add_layer(self, layer_param: Any, where: str) -> Node:
        if len(layer_param.propagate_down) not in (0, len(layer_param.bottom)):
            raise LayerError(
                "propagate_down param must be specified either 0 or bottom_size times. "
                f"Got {len(layer_param.propagate_down)} for {len(layer_param.bottom)} bottoms."
            )
        layer = create_layer(layer_param, layer_param.phase, self.dialect)
        bottom = [self._append_bottom(layer_param, i) for i in range(len(layer_param.bottom))]
        top = [self._append_top(layer_param, i) for i in range(len(layer_param.top))]
        if layer.auto_top_blobs:
            needed = max(layer.min_top_blobs or 0, layer.exact_num_top_blobs or 0)
            while len(top) < needed:
                top.append(self._new_blob("(automatic)"))
        _check_counts(layer, len(bottom), len(top))
        bottoms, tops = [self.blobs[i] for i in bottom], [self.blobs[i] for i in top]
        layer.set_up_blobs(bottoms, tops)
        layer.reshape_blobs(bottoms, tops)
        weights = _loss_weights(layer, layer_param, tops)
        for blob_id, weight in zip(top, weights):
            self.loss_weights[blob_id] = weight
        need = any([self.blob_need_backward[i] for i in bottom] + self._append_parameters(layer, layer_param))
        bottom_need = list(layer_param.propagate_down) or [self.blob_need_backward[i] for i in bottom]
        if need:
            for blob_id in top:
                self.blob_need_backward[blob_id] = True
        return Node(
            layer,
            layer_param.name,
            layer_param.type,
            tuple(bottom),
            tuple(top),
            weights,
            tuple(bottom_need),
            need,
            where,
        )

    def _new_blob(self, name: str) -> int:
        self.blobs.append(Blob((0,)))
        self.blob_names.append(name)
        self.blob_need_backward.append(False)
        self.loss_weights.append(0.0)
        return len(self.blobs) - 1

    def _append_bottom(self, layer_param: Any, index: int) -> int:
        name = layer_param.bottom[index]
        if name not in self.available:
            raise UnknownBottom(
                f"Unknown bottom blob {name!r} (layer {layer_param.name!r}, bottom index {index})."
                f"{did_you_mean(name, self.available)}"
            )
        self.available.remove(name)
        return self.index_of[name]

    def _append_top(self, layer_param: Any, index: int) -> int:
        name = layer_param.top[index]
        if index < len(layer_param.bottom) and layer_param.bottom[index] == name:
            blob_id = self.index_of[name]  # in place
        elif name in self.index_of:
            raise DuplicateTop(
                f"Top blob {name!r} produced by multiple sources. An in-place layer must be the only reader of its "
                "blob at that point, and other layers need top names of their own; rename this top."
            )
        else:
            blob_id = self.index_of[name] = self._new_blob(name)
            if layer_param.type == "Input":
                self.inputs.append(blob_id)
        self.available.add(name)
        return blob_id

    # -- parameters

    def _append_parameters(self, layer: Layer, layer_param: Any) -> list[bool]:
        specs = layer_param.param
        rates = layer.layer_param.param  # a layer may have set its own (BatchNorm's lr_mult: 0)
        if len(specs) > len(layer.blobs):
            raise LayerError(
                f"Too many params specified for layer {layer_param.name}. Got {len(specs)}, it has {len(layer.blobs)}."
            )
        need = []
        for index, blob in enumerate(layer.blobs):
            spec = specs[index] if index < len(specs) else None
            need.append(spec is None or spec.lr_mult != 0)
            self._append_parameter(blob, index, rates[index] if index < len(rates) else None)
        layer.param_propagate_down = list(need)
        return need

    def _append_parameter(self, blob: Blob, index: int, spec: Any) -> None:
        name = spec.name if spec is not None else ""
        owner = self.parameter_index.get(name) if name else None
        if name and owner is None:
            self.parameter_index[name] = len(self.parameters)
        if owner is not None:
            self._check_sharing(owner, blob, spec)
        self.parameters.append(
            Parameter(
                blob=blob,
                layer=len(self.nodes),
                index=index,
                owner=owner,
                lr_mult=spec.lr_mult if spec is not None else 1.0,
                decay_mult=spec.decay_mult if spec is not None else 1.0,
                display_name=name or str(index),
            )
        )

    def _check_sharing(self, owner: int, blob: Blob, spec: Any) -> None:
        first = self.parameters[owner]
        mine = f"Cannot share param {spec.name!r} owned by layer {self.nodes[first.layer].name!r}"
        if spec.share_mode == 1:  # PERMISSIVE
            if blob.count != first.blob.count:
                raise ShapeError(
                    f"{mine}; count mismatch. Owner layer param shape is {first.blob.shape!r}; "
                    f"sharing layer shape is {blob.shape!r}."
                )
        elif blob.shape != first.blob.shape:
            raise ShapeError(
                f"{mine}; shape mismatch. Owner layer param shape is {first.blob.shape!r}; "
                f"sharing layer expects shape {blob.shape!r}. `share_mode: PERMISSIVE` compares counts only."
            )
        shared = [p for i, p in enumerate(self.parameters) if owner in (i, p.owner)]
        specs = {(p.layer, p.index): self.source.param.layer[p.layer].param[p.index] for p in shared}
        for field in ("lr_mult", "decay_mult"):
            stated = [getattr(other, field) for other in specs.values() if other.HasField(field)]
            if spec.HasField(field) and stated and stated[0] != getattr(spec, field):
                raise LayerError(
                    f"Shared param {spec.name!r} has mismatched {field}. "
                    f"Got {getattr(spec, field)!r} and {stated[0]!r}."
                )
            if spec.HasField(field) and not stated:  # the owner takes the multiplier that a sharer states first
                self.parameters[owner] = dataclasses.replace(self.parameters[owner], **{field: getattr(spec, field)})

    def _share_parameters(self) -> None:
        for parameter in self.parameters:
            if parameter.owner is not None:
                owner = self.parameters[parameter.owner].blob
                parameter.blob.share_data(owner)
                parameter.blob.share_diff(owner)


def _check_counts(layer: Layer, bottoms: int, tops: int) -> None:
    demands = [
        (
            "takes",
            "bottom",
            "input",
            bottoms,
            layer.exact_num_bottom_blobs,
            layer.min_bottom_blobs,
            layer.max_bottom_blobs,
        ),
        ("produces", "top", "output", tops, layer.exact_num_top_blobs, layer.min_top_blobs, layer.max_top_blobs),
    ]
    for verb, what, role, got, exact, least, most in demands:
        for bound, wrong, amount in (
            (exact, exact is not None and got != exact, ""),
            (least, least is not None and got < least, "at least "),
            (most, most is not None and got > most, "at most "),
        ):
            if wrong:
                raise LayerError(f"{layer.type} Layer {verb} {amount}{bound} {what} blob(s) as {role}. Got {got}.")
    if layer.equal_num_bottom_top_blobs and bottoms != tops:
        raise LayerError(
            f"{layer.type} Layer produces one top blob as output for each bottom blob input. Got {bottoms} and {tops}."
        )


def _loss_weights(layer: Layer, layer_param: Any, tops: Sequence[Blob]) -> tuple[float, ...]:
    """Each top's weight in the loss; one that is not zero fills the top's diff (Layer::SetLossWeights)."""
    stated = list(layer_param.loss_weight)
    if stated and len(stated) != len(tops):
        raise LayerError(
            f"loss_weight must be unspecified or specified once per top blob. Got {len(stated)} for {len(tops)} tops."
        )
    weights = stated or [layer.default_loss_weight(i) for i in range(len(tops))]
    for blob, weight in zip(tops, weights):
        if weight:
            blob.raw_diff()[...] = weight
    return tuple(weights)


def _prune_backward(nodes: list[Node], blob_names: list[str]) -> None:
    """Drops backward where nothing contributes to a loss, or where every top is cut off by `propagate_down: false`."""
    under_loss: set[str] = set()
    skipped: set[str] = set()
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        names = [blob_names[i] for i in node.top]
        contributes = any(node.loss_weights) or any(name in under_loss for name in names)
        need, bottom_need = node.need_backward, list(node.bottom_need_backward)
        # As in net.cpp, whose loop breaks early: a top that is not skipped keeps the layer, and no top at all skips it.
        if need and all(name in skipped for name in names):
            need, bottom_need = False, [False] * len(bottom_need)
        if not contributes:
            need, bottom_need = False, [False] * len(bottom_need)
        for blob_id, wanted in zip(node.bottom, bottom_need):
            if contributes:
                under_loss.add(blob_names[blob_id])
            if not wanted:
                skipped.add(blob_names[blob_id])
        nodes[index] = dataclasses.replace(node, need_backward=need, bottom_need_backward=tuple(bottom_need))


def _force_backward(nodes: list[Node]) -> None:
    for index, node in enumerate(nodes):
        bottom_need = tuple(
            wanted or node.layer.allow_force_backward(i) for i, wanted in enumerate(node.bottom_need_backward)
        )
        nodes[index] = dataclasses.replace(node, need_backward=True, bottom_need_backward=bottom_need)
        node.layer.param_propagate_down = [True] * len(node.layer.blobs)


def check_range(graph: Graph, start: int, end: int) -> None:
    """Raises NetError unless both are layer indices."""
    count = len(graph.nodes)
    if not (0 <= start < count and 0 <= end < count):
        raise NetError(f"Layer range {start} to {end} is outside the net, which has layers 0 to {count - 1}.")
