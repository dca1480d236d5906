"""pycaffe: Caffe for today's Python.

Names are loaded at their first use, so that `import pycaffe` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pycaffe import cv2dnn
    from pycaffe.cv2dnn import read_net_from_caffe
    from pycaffe.detection import Box, Detection, detect
    from pycaffe.errors import (
        CaffeError,
        ClusterError,
        DataError,
        DeviceError,
        DuplicateTop,
        ExportError,
        ExportMismatch,
        InputError,
        ItemTimeout,
        LayerError,
        MissingExtra,
        NetError,
        PoolError,
        ProtoError,
        ShapeError,
        SolverError,
        SolversLost,
        UnknownBottom,
        UnknownLayerType,
        WeightsError,
        WorkerDied,
    )
    from pycaffe.export import ExportReport, export_onnx, to_torch
    from pycaffe.images import ImagePreprocess
    from pycaffe.net import TEST, TRAIN, Net
    from pycaffe.workers import Pool, PoolStats, Result, WithContext, WorkerStats

__all__ = [
    "Box",
    "CaffeError",
    "ClusterError",
    "DataError",
    "Detection",
    "DeviceError",
    "DuplicateTop",
    "ExportError",
    "ExportMismatch",
    "ExportReport",
    "ImagePreprocess",
    "InputError",
    "ItemTimeout",
    "LayerError",
    "MissingExtra",
    "Net",
    "NetError",
    "Pool",
    "PoolError",
    "PoolStats",
    "ProtoError",
    "Result",
    "ShapeError",
    "SolverError",
    "SolversLost",
    "TEST",
    "TRAIN",
    "UnknownBottom",
    "UnknownLayerType",
    "WeightsError",
    "WithContext",
    "WorkerDied",
    "WorkerStats",
    "cv2dnn",
    "detect",
    "export_onnx",
    "read_net_from_caffe",
    "to_torch",
]

_HOMES = {
    "Box": "pycaffe.detection",
    "Detection": "pycaffe.detection",
    "ExportReport": "pycaffe.export",
    "ImagePreprocess": "pycaffe.images",
    "Net": "pycaffe.net",
    "Pool": "pycaffe.workers",
    "PoolStats": "pycaffe.workers",
    "Result": "pycaffe.workers",
    "TEST": "pycaffe.net",
    "TRAIN": "pycaffe.net",
    "WithContext": "pycaffe.workers",
    "WorkerStats": "pycaffe.workers",
    "detect": "pycaffe.detection",
    "export_onnx": "pycaffe.export",
    "read_net_from_caffe": "pycaffe.cv2dnn",
    "to_torch": "pycaffe.export",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "cv2dnn":
        return importlib.import_module("pycaffe.cv2dnn")  # which sets the attribute
    value = getattr(importlib.import_module(_HOMES.get(name, "pycaffe.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
