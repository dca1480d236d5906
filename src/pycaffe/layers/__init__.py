"""The layers, one type per file; see `_base.py` for what a layer is and `_registry.py` for how one is found."""

from pycaffe.layers._base import HostLayer, Layer, LossLayer
from pycaffe.layers._lowering import Lowering, NotLowerable
from pycaffe.layers._registry import create_layer, layer_class, layer_types, register_layer

__all__ = [
    "HostLayer",
    "Layer",
    "LossLayer",
    "Lowering",
    "NotLowerable",
    "create_layer",
    "layer_class",
    "layer_types",
    "register_layer",
]
