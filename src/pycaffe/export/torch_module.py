"""A net as a `torch.nn.Module`. Imported by `to_torch` alone: this import needs torch."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

from pycaffe.errors import InputError
from pycaffe.export.source import refuse_host_layers, source_of
from pycaffe.graph import Graph, Node, build_graph
from pycaffe.layers import Layer
from pycaffe.layers._torch import Tensor, torch
from pycaffe.net import TRAIN, Net
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.schema import NetParameter

__all__ = ["CaffeModule", "LayerParameters"]

# What a layer's blobs are called. Other types have param0, param1, ...
_NAMES = {
    "BatchNorm": ("mean_sum", "variance_sum", "scale_factor"),
    "Bias": ("bias",),
    "Convolution": ("weight", "bias"),
    "Deconvolution": ("weight", "bias"),
    "Embed": ("weight", "bias"),
    "InnerProduct": ("weight", "bias"),
    "PReLU": ("weight",),
    "Scale": ("weight", "bias"),
}
_BUFFERS = ("BatchNorm",)  # statistics, which a forward in training moves


class LayerParameters(torch.nn.Module):  # type: ignore[misc]
    """The parameters of one layer, in Caffe's order."""

    def __init__(self, layer_type: str) -> None:
        super().__init__()
        self.layer_type = layer_type
        self.order: list[str] = []

    def add(self, index: int, value: Tensor) -> str:
        """Adds blob `index`, as a buffer where the layer's blobs are statistics; returns its name."""
        names = _NAMES.get(self.layer_type, ())
        name = names[index] if index < len(names) else f"param{index}"
        self.order.append(name)
        if self.layer_type in _BUFFERS:
            self.register_buffer(name, value)
        else:
            self.register_parameter(name, value)
        return name

    def values(self) -> list[Tensor]:
        """The parameters as the layer takes them."""
        return [getattr(self, name) for name in self.order]

    def extra_repr(self) -> str:
        """The layer's type and the shapes."""
        shapes = (f"{name}={tuple(getattr(self, name).shape)}" for name in self.order)
        return ", ".join([self.layer_type, *shapes])


class CaffeModule(torch.nn.Module):  # type: ignore[misc]
    """See `pycaffe.to_torch`.

    It owns layers of its own, one set for each phase, which are built again from their prototxt when it is unpickled
    or copied.

    Attributes:
        inputs, outputs: blob names.
    """

    def __init__(self, net: Net, *, shared: bool = False) -> None:
        super().__init__()
        graph = net._graph
        source = source_of(graph)
        refuse_host_layers(source, "to torch")
        written = {i for node in graph.nodes if node.type != "Input" for i in node.top}
        self.inputs = [graph.blob_names[i] for i in graph.inputs]
        self.outputs = [graph.blob_names[i] for i in graph.outputs if i in written]
        self._prototxt = (source.param.SerializeToString(), source.filename, source.layer_lines, source.dialect)
        self._children: dict[int, str] = {}  # index of a layer -> name of its child
        # Of a layer, position -> child, parameter and the other shape in which the layer shares it.
        self._views: dict[int, dict[int, tuple[str, str, tuple[int, ...]]]] = {}
        self._build_layers()
        self._add_parameters(graph, shared)
        self.train(graph.phase == TRAIN)

    # -- set-up

    def _build_layers(self) -> None:
        data, filename, lines, dialect = self._prototxt
        param = NetParameter()
        param.ParseFromString(data)
        source = NetSource(param, filename, lines, dialect=dialect)
        self._graphs: list[Graph] = [build_graph(dataclasses.replace(source), phase) for phase in (0, 1)]
        names = self._graphs[0].blob_names
        self._ids = {name: i for i, name in enumerate(names)}
        memory = list(range(len(names)))  # blob -> the blob whose memory it has: a Flatten's top is its bottom
        for node in self._graphs[0].nodes:
            if node.layer.shares_data:
                for top in node.top:
                    memory[top] = memory[node.bottom[0]]
        self._sharing = {
            i: [j for j in range(len(names)) if j != i and memory[j] == memory[i]] for i in range(len(names))
        }

    def _add_parameters(self, graph: Graph, shared: bool) -> None:
        names: dict[int, tuple[str, str]] = {}  # storage -> child and parameter that hold it
        for index, node in enumerate(graph.nodes):
            if not node.layer.blobs:
                continue
            child = LayerParameters(node.type)
            child_name = node.name.replace(".", "_") or "_"
            while child_name in self._modules or hasattr(self, child_name):
                child_name += "_"
            self.add_module(child_name, child)
            self._children[index] = child_name
            for position, blob in enumerate(node.layer.blobs):
                holder = names.get(id(blob.data_storage))
                value: Tensor = getattr(self._modules[holder[0]], holder[1]) if holder is not None else None
                if holder is not None and tuple(value.shape) != blob.shape:  # share_mode: PERMISSIVE
                    self._views.setdefault(index, {})[position] = (*holder, blob.shape)
                    continue
                if value is None:
                    value = torch.from_numpy(blob.data)  # a view with a lease: the net sees what changes
                    value = value if shared else value.clone()
                    if node.type not in _BUFFERS:
                        value = torch.nn.Parameter(value, requires_grad=_learns(graph, index, position))
                names.setdefault(id(blob.data_storage), (child_name, child.add(position, value)))

    def _parameters_of(self, index: int) -> list[Tensor]:
        if index not in self._children:
            return []
        values: list[Tensor] = self._modules[self._children[index]].values()
        for position, (child, name, shape) in sorted(self._views.get(index, {}).items()):
            values.insert(position, getattr(self._modules[child], name).view(shape))
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_graphs", "_ids", "_sharing")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._build_layers()

    # -- forward

    def forward(self, *inputs: Tensor, **named: Tensor) -> Any:
        """The outputs: a tensor, or a dict by blob name where there is not exactly one.

        Raises:
            InputError: an input is missing, unknown, or no tensor.
            ShapeError: a layer does not take the shape; with file, line and layer.
        """
        values = {self._ids[name]: value for name, value in self._inputs(inputs, named).items()}
        for index, node in enumerate(self._graphs[0 if self.training else 1].nodes):
            if node.type == "Input":
                continue
            with node.located_errors():
                tops = _run(node, [values[i] for i in node.bottom], self._parameters_of(index))
            for i, value in zip(node.top, tops):
                values[i] = value
                if i in node.bottom and not node.layer.shares_data:
                    for other in self._sharing[i]:  # work in place is seen in every blob over that memory
                        if other in values:
                            values[other] = value.reshape(values[other].shape)
        found = {name: values[self._ids[name]] for name in self.outputs}
        return found[self.outputs[0]] if len(found) == 1 else found

    def _inputs(self, inputs: Sequence[Tensor], named: dict[str, Tensor]) -> dict[str, Tensor]:
        given = {**dict(zip(self.inputs, inputs)), **named}
        if len(inputs) > len(self.inputs) or len(given) != len(inputs) + len(named) or set(given) != set(self.inputs):
            got = [*(f"{len(inputs)} unnamed" for _ in inputs[:1]), *named]
            raise InputError(f"Expected one tensor for each of the inputs {self.inputs!r}, got {got!r}.")
        for name, value in given.items():
            if not isinstance(value, torch.Tensor):
                raise InputError(f"Input {name!r} must be a torch.Tensor, got {type(value).__name__!r}.")
            if not value.is_floating_point():  # labels are floats in Caffe
                given[name] = value.to(self._float_type())
        return given

    def _float_type(self) -> Any:
        return next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.get_default_dtype())


def _learns(graph: Graph, layer: int, index: int) -> bool:
    parameter = next(p for p in graph.parameters if (p.layer, p.index) == (layer, index))
    return parameter.lr_mult != 0


def _run(node: Node, bottom: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    layer = node.layer
    layer.bottom_shapes = [tuple(value.shape) for value in bottom]
    layer.top_shapes = layer.reshape(layer.bottom_shapes)
    if layer.has_own_backward() and torch.is_grad_enabled():
        return list(_CaffeGradient.apply(layer, len(bottom), *bottom, *params))
    return layer.forward(bottom, params)


class _CaffeGradient(torch.autograd.Function):  # type: ignore[misc]
    """A layer whose backward in Caffe is not the derivative."""

    @staticmethod
    def forward(ctx: Any, layer: Layer, bottoms: int, *values: Tensor) -> tuple[Tensor, ...]:
        bottom, params = list(values[:bottoms]), list(values[bottoms:])
        top = [value.clone() if any(value is b for b in bottom) else value for value in layer.forward(bottom, params)]
        ctx.layer = copy.copy(layer)  # the next forward may have other shapes
        ctx.bottoms, ctx.tops = bottoms, len(top)
        ctx.save_for_backward(*top, *values)
        return tuple(top)

    @staticmethod
    def backward(ctx: Any, *top_diff: Tensor) -> tuple[Tensor | None, ...]:
        saved = list(ctx.saved_tensors)
        top, values = saved[: ctx.tops], saved[ctx.tops :]
        bottom, params = values[: ctx.bottoms], values[ctx.bottoms :]
        need = list(ctx.needs_input_grad[2 : 2 + ctx.bottoms])
        ctx.layer.param_propagate_down = list(ctx.needs_input_grad[2 + ctx.bottoms :])
        with torch.no_grad():
            bottom_diff, param_diff = ctx.layer.backward(list(top_diff), top, bottom, params, need)
        found = zip([*bottom_diff, *param_diff], values, ctx.needs_input_grad[2:])
        return (None, None, *(d.reshape(v.shape) if n and d is not None else None for d, v, n in found))
