"""The module that scripts import `Net` from; what it is lives in the package `pycaffe`."""

from ._caffe import Blob, Layer, Net, Timer

__all__ = ["Blob", "Layer", "Net", "Timer"]
