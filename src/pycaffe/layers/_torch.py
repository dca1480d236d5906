"""The one place where layers get torch: imported at the first use, so that inference runs without it."""

from __future__ import annotations

import importlib
from typing import Any

from pycaffe.errors import MissingExtra

__all__ = ["Tensor", "torch"]

Tensor = Any  # torch.Tensor; torch is optional, so its types are not imported


class _LazyTorch:
    """Stands for the module `torch` until an attribute is asked for."""

    def __getattr__(self, name: str) -> Any:
        try:
            module = importlib.import_module("torch")
        except ImportError as error:
            raise MissingExtra.of(
                "torch", "train", "Backward, training, and layers that onnxruntime cannot express"
            ) from error
        value = getattr(module, name)
        setattr(self, name, value)
        return value


torch: Any = _LazyTorch()
