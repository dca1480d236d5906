"""Writes nets in Python: `n.conv1 = L.Convolution(n.data, kernel_size=3, num_output=8)`, then `n.to_proto()`.

`layers` (imported as L) makes layers of any type, `params` (imported as P) holds the enum values of parameters
(`P.Pooling.MAX`). Layers that got no name by being assigned to a `NetSpec` are called by their type and a number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from caffe.proto import caffe_pb2
from pycaffe.errors import LayerError, did_you_mean

__all__ = [
    "Function",
    "Layers",
    "NetSpec",
    "Parameters",
    "Top",
    "UnknownParameter",
    "assign_proto",
    "layers",
    "param_name_dict",
    "params",
    "to_proto",
]


class UnknownParameter(LayerError, AttributeError):
    """A layer was given a parameter that its messages do not have."""


def param_name_dict() -> dict[str, str]:
    """Layer type → stem of its parameter field: {"Convolution": "convolution", "InnerProduct": "inner_product", …}."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name.removesuffix("Parameter"): field.name.removesuffix("_param")
        for field in fields
        if field.name.endswith("_param") and field.message_type is not None
    }


def to_proto(*tops: Top) -> Any:
    """The NetParameter of every layer that `tops` need."""
    return _net_of(tops, {})


def _net_of(tops: Sequence[Any], names: dict[Any, str]) -> Any:
    layers: dict[Function, Any] = {}
    autonames: Counter[str] = Counter()
    for top in tops:
        if not isinstance(top, (Top, Function)):
            label = next((name for value, name in names.items() if value is top), None)
            raise TypeError(
                f"{label or 'an argument'} is not a Top (type is {type(top)}). A layer with several tops is assigned "
                "to as many names: n.data, n.label = L.Data(..., ntop=2)"
            )
        top._to_proto(layers, names, autonames)
    net = caffe_pb2.NetParameter()
    net.layer.extend(layers.values())
    return net


def assign_proto(proto: Any, name: str, val: Any) -> None:
    """Sets the field `name` of a message from a Python value.

    A dict fills a message, a list or tuple a repeated field; a single value for a repeated field becomes its only
    element.

    Raises:
        UnknownParameter: (an AttributeError) the message has no such field.
    """
    if name not in proto.DESCRIPTOR.fields_by_name:
        known = proto.DESCRIPTOR.fields_by_name
        raise UnknownParameter(f"{proto.DESCRIPTOR.name} has no field {name!r}.{did_you_mean(name, known)}")
    field = getattr(proto, name)
    if isinstance(val, (tuple, np.ndarray)):
        val = list(val)
    if hasattr(field, "extend"):
        val = val if isinstance(val, list) else [val]
        if val and isinstance(val[0], dict):
            for item in val:
                _assign_all(field.add(), item)
        else:
            field.extend(val)
    elif isinstance(val, dict):
        field.SetInParent()
        _assign_all(field, val)
    elif hasattr(val, "DESCRIPTOR"):
        field.CopyFrom(val)
    else:
        setattr(proto, name, val)


def _assign_all(message: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        assign_proto(message, name, value)


class Top:
    """One output blob of a layer: the `n`-th top of the Function `fn`."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> Any:
        """The NetParameter of every layer that this top needs."""
        return to_proto(self)

    def _to_proto(self, layers: dict[Function, Any], names: dict[Any, str], autonames: Counter[str]) -> None:
        self.fn._to_proto(layers, names, autonames)


class Function:
    """A layer: its type, its bottoms (Tops of other layers) and its parameters.

    `params` may hold `ntop` (number of tops, 1) and `in_place` (the tops are the bottoms); all else goes into the
    message.

    Raises:
        TypeError: a bottom is not a Top.
    """

    def __init__(self, type_name: str, inputs: Sequence[Top], params: dict[str, Any]) -> None:
        for index, bottom in enumerate(inputs):
            if not isinstance(bottom, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(bottom)})")
        self.type_name = type_name
        self.inputs = inputs
        self.params = params
        self.ntop: int = params.pop("ntop", 1)
        self.in_place: bool = params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _get_name(self, names: dict[Any, str], autonames: Counter[str]) -> str:
        if self not in names:
            names[self] = (
                self._get_top_name(self.tops[0], names, autonames) if self.tops else self._next_name(autonames)
            )
        return names[self]

    def _get_top_name(self, top: Top, names: dict[Any, str], autonames: Counter[str]) -> str:
        if top not in names:
            names[top] = top.fn._next_name(autonames)
        return names[top]

    def _next_name(self, autonames: Counter[str]) -> str:
        autonames[self.type_name] += 1
        return f"{self.type_name}{autonames[self.type_name]}"

    def _to_proto(self, layers: dict[Function, Any], names: dict[Any, str], autonames: Counter[str]) -> None:
        if self in layers:
            return
        bottoms = []
        for bottom in self.inputs:
            bottom._to_proto(layers, names, autonames)
            bottoms.append(layers[bottom.fn].top[bottom.n])
        layer = caffe_pb2.LayerParameter()
        layer.type = self.type_name
        layer.bottom.extend(bottoms)
        layer.top.extend(bottoms if self.in_place else [self._get_top_name(top, names, autonames) for top in self.tops])
        layer.name = self._get_name(names, autonames)
        for name, value in self.params.items():
            assign_proto(self._message_with(layer, name), name, value)
        layers[self] = layer

    def _message_with(self, layer: Any, name: str) -> Any:
        """The message that has the field `name`: the LayerParameter (`param`, `convolution_param`), or its type's."""
        fields = layer.DESCRIPTOR.fields_by_name
        if name.endswith("param") and name in fields:
            return layer
        own = f"{_param_names.get(self.type_name, '')}_param"
        known = list(fields)
        if own in fields:
            own_fields = fields[own].message_type.fields_by_name
            if name in own_fields:
                return getattr(layer, own)
            known = [*own_fields, *fields]
        if name in fields:
            return layer
        raise UnknownParameter(
            f"Layer {layer.name!r} of type {self.type_name!r} has no parameter {name!r}.{did_you_mean(name, known)}"
        )


class NetSpec:
    """Tops by name: assigning one names it, `to_proto()` gives the net of all of them, in that order."""

    tops: dict[str, Any]

    def __init__(self) -> None:
        super().__setattr__("tops", {})

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name == "tops" or name not in self.tops:  # "tops" itself is missing while a copy is being made
            raise AttributeError(f"NetSpec has no top {name!r}")
        return self.tops[name]

    def __setitem__(self, key: str, value: Any) -> None:
        self.tops[key] = value

    def __getitem__(self, item: str) -> Any:
        return self.tops[item]

    def to_proto(self) -> Any:
        """The NetParameter of every layer that the assigned tops need.

        Raises:
            TypeError: what was assigned is not a Top.
            UnknownParameter: a layer has no such parameter.
        """
        return _net_of(list(self.tops.values()), {top: name for name, top in self.tops.items() if _hashable(top)})


def _hashable(value: Any) -> bool:
    return type(value).__hash__ is not None


class Layers:
    """`layers.Convolution(bottom, kernel_size=3)` gives the Top of a new layer: a tuple of them for `ntop` above 1.

    With `ntop=0` it gives the Function itself.
    """

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):  # copying and inspecting ask for these
            raise AttributeError(name)

        def layer_fn(*args: Any, **kwargs: Any) -> Any:
            function = Function(name, args, kwargs)
            if function.ntop == 0:
                return function
            return function.tops[0] if function.ntop == 1 else function.tops

        return layer_fn


class _Enums:
    """The enum values of one parameter message."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(getattr(caffe_pb2, self._message), name)


class Parameters:
    """`params.Pooling.MAX` is the value MAX of the enums in PoolingParameter."""

    def __getattr__(self, name: str) -> _Enums:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Enums(name + "Parameter")


_param_names = param_name_dict()
layers = Layers()
params = Parameters()
