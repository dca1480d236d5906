"""Python: a layer written by the user."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from pycaffe.blob import Blob
from pycaffe.layers._base import HostLayer
from pycaffe.layers._registry import register_layer

__all__ = ["BlobVec", "NamedPhase", "PythonLayer", "UserLayer"]


class BlobVec(list[Blob]):
    """A layer's parameters: a list with pycaffe's `add_blob`."""

    def add_blob(self, *shape: int) -> None:
        """Appends a blob of zeros with that shape."""
        self.append(Blob(shape))


class UserLayer:
    """Base class of users' layers: `caffe.Layer`.

    A subclass defines `setup(bottom, top)`, `reshape(bottom, top)`, `forward(bottom, top)` and
    `backward(top, propagate_down, bottom)`; bottoms and tops are blobs. Inside, `self.param_str` is the string of
    `python_param`, `self.phase` is 0 (TRAIN) or 1 (TEST), and `self.blobs.add_blob(*shape)` adds a learnable parameter.
    """

    type = "Python"
    param_str = ""
    phase = 0
    blobs: BlobVec

    def __new__(cls, *args: Any, **kwargs: Any) -> UserLayer:
        instance = super().__new__(cls)
        instance.blobs = BlobVec()  # here and not in __init__, which subclasses override without calling it
        return instance

    def __init__(self, param: Any = None) -> None:
        """Takes the LayerParameter, as the original's base class does."""


class NamedPhase(int):
    """A phase whose string is its name, as in Faster R-CNN, whose layers look up `cfg[str(self.phase)]`."""

    def __str__(self) -> str:
        return "TEST" if self else "TRAIN"


@register_layer("Python")
class PythonLayer(HostLayer):
    """Runs the class `python_param.layer` of the module `python_param.module` (python_layer.hpp).

    bottom, top: any; the user's `reshape` gives the tops their shapes.

    The module is imported as Python imports, the working directory included. An exception in the user's code arrives
    unchanged. `share_in_parallel` is read and ignored, as in the original. In the dialect "frcnn" `str(self.phase)` is
    the phase's name; `self.param_str_` is there in every dialect.
    """

    checked_by = "the original's Python tests"
    user: Any

    def __init__(self, param: Any, phase: int) -> None:
        super().__init__(param, phase)
        python_param = param.python_param
        module = _import(python_param.module)
        cls = getattr(module, python_param.layer, None)
        if cls is None:
            raise self.error(f"Module {python_param.module!r} has no class {python_param.layer!r}.")
        self.user = cls(param)
        self.user.param_str = python_param.param_str
        self.user.param_str_ = python_param.param_str  # Faster R-CNN's name for it
        self.user.phase = phase
        if not isinstance(getattr(self.user, "blobs", None), BlobVec):
            raise self.error(
                f"Class {python_param.layer!r} of {python_param.module!r} does not derive from caffe.Layer."
            )
        self.blobs = self.user.blobs

    @property
    def user_layer(self) -> Any:
        return self.user

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        if self.dialect == "frcnn":
            self.user.phase = NamedPhase(self.phase)
        self.user.setup(bottom, top)

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.bottom_shapes = [blob.shape for blob in bottom]
        self.user.reshape(bottom, top)
        self.top_shapes = [blob.shape for blob in top]

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.user.forward(bottom, top)

    def backward_blobs(self, top: Sequence[Blob], propagate_down: list[bool], bottom: Sequence[Blob]) -> None:
        self.user.backward(top, propagate_down, bottom)


def _import(name: str) -> Any:
    if name in sys.modules:
        return sys.modules[name]
    importlib.invalidate_caches()  # a script may have written the module a moment ago
    return importlib.import_module(name)
