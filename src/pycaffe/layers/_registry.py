"""From a layer type to its class, by file name: type `SoftmaxWithLoss` lives in `layers/softmax_with_loss.py`.

There is no table to keep: a file's name without underscores is the type in lower case, and the decorator at the class
says the type. Where forks spell one layer with other capitals, its decorator lists their spellings, too.
`tests/test_repository.py` holds every file to that.

Users' own layers come by the same decorator, or from installed packages by the entry-point group `pycaffe.layers`
(name: the type; value: module:Class), which are looked at when a type is not one of ours.
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

ENTRY_POINTS = "pycaffe.layers"
_classes: dict[str, type[Layer]] = {}
_LayerClass = TypeVar("_LayerClass", bound=type[Layer])


def register_layer(layer_type: str, *spellings: str) -> Callable[[_LayerClass], _LayerClass]:
    """Class decorator: makes the class, a `Layer`, the one for `layer_type` and for its other spellings.

    Raises:
        LayerError: there is a class for the type already, ours included.
    """

    def register(cls: _LayerClass) -> _LayerClass:
        for name in (layer_type, *spellings):
            if not cls.__module__.startswith(f"{__package__}."):
                _load_own(name)
            known = _classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise LayerError(f"Layer type {name!r} already registered, by {known.__module__}.{known.__qualname__}.")
            _classes[name] = cls
        cls.type = layer_type
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
        _load_own(layer_type)
    if layer_type not in _classes:
        _load_installed(layer_type)
    if layer_type not in _classes:
        known = layer_types()
        raise UnknownLayerType(
            f"Unknown layer type: {layer_type} (known types: {', '.join(known)}).{did_you_mean(layer_type, known)} "
            "A layer of your own: docs/plugins.md."
        )
    return _classes[layer_type]


def _load_own(layer_type: str) -> None:
    """Imports the file of this folder that would hold the type."""
    module = _modules().get(layer_type.lower())
    if module is not None:
        importlib.import_module(f"pycaffe.layers.{module}")


def _load_installed(layer_type: str) -> None:
    """Loads the layer that an installed package offers under the name of the type.

    Raises:
        LayerError: several packages do, the class cannot be loaded, or it is no Layer.
    """
    from importlib import metadata  # here, because few need it and it imports 30 modules

    found = metadata.entry_points(group=ENTRY_POINTS, name=layer_type)
    offers = {entry.value: entry for entry in found}  # a package may be found twice along sys.path
    if len(offers) > 1:
        raise LayerError(f"Layer type {layer_type!r} is offered by several packages: {', '.join(sorted(offers))}.")
    for entry in offers.values():
        try:
            cls = entry.load()
        except Exception as error:  # a user's module may do anything while it is imported
            raise LayerError(f"Could not load layer type {layer_type!r} from {entry.value!r}: {error}") from error
        if not (isinstance(cls, type) and issubclass(cls, Layer)):
            raise LayerError(f"{entry.value!r}, offered as layer type {layer_type!r}, is no pycaffe.layers.Layer.")
        if _classes.get(layer_type) is not cls:  # it may carry the decorator as well
            register_layer(layer_type)(cls)


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
