"""From a layer type to its class, by file name: type `SoftmaxWithLoss` lives in `layers/softmax_with_loss.py`.

There is no table to keep: a file's name without underscores is the type in lower case, and the decorator at the class
says the type. `tests/layers/test_registry.py` holds every file to that.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from pycaffe.errors import LayerError, UnknownLayerType, did_you_mean
from pycaffe.layers._base import Layer
from pycaffe.proto.dialect import DEFAULT_DIALECT

__all__ = ["create_layer", "layer_class", "layer_types", "register_layer"]

_classes: dict[str, type[Layer]] = {}
_LayerClass = TypeVar("_LayerClass", bound=type[Layer])


def register_layer(layer_type: str) -> Callable[[_LayerClass], _LayerClass]:
    """Class decorator: makes the class the one for `layer_type`. A second class for a type is an error."""

    def register(cls: _LayerClass) -> _LayerClass:
        known = _classes.get(layer_type)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise LayerError(
                f"Layer type {layer_type!r} already registered, by {known.__module__}.{known.__qualname__}."
            )
        cls.type = layer_type
        _classes[layer_type] = cls
        return cls

    return register


def _modules() -> dict[str, str]:
    """Lower-case type -> module name, read off the folder."""
    import pycaffe.layers as package

    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return {name.replace("_", ""): name for name in names if not name.startswith("_")}


def layer_class(layer_type: str) -> type[Layer]:
    """The class registered for a type.

    Raises:
        UnknownLayerType: with the known types and the nearest one.
    """
    if layer_type not in _classes:
        module = _modules().get(layer_type.lower())
        if module is not None:
            importlib.import_module(f"pycaffe.layers.{module}")
    if layer_type not in _classes:
        known = layer_types()
        raise UnknownLayerType(
            f"Unknown layer type: {layer_type} (known types: {', '.join(known)}).{did_you_mean(layer_type, known)}"
        )
    return _classes[layer_type]


def layer_types() -> list[str]:
    """All registered types in alphabetical order."""
    for module in _modules().values():
        importlib.import_module(f"pycaffe.layers.{module}")
    return sorted(_classes)


def create_layer(param: object, phase: int, dialect: str = DEFAULT_DIALECT) -> Layer:
    """A layer from its LayerParameter, the net's phase and its dialect."""
    layer = layer_class(param.type)(param, phase)  # type: ignore[attr-defined]
    layer.dialect = dialect
    return layer
