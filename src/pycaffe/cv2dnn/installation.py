"""Puts the Caffe importer back into `cv2.dnn`, and takes it out again."""

from __future__ import annotations

import os
from typing import Any

from pycaffe.cv2dnn.models import ClassificationModel, DetectionModel, KeypointsModel, Model, SegmentationModel
from pycaffe.cv2dnn.net import Net
from pycaffe.cv2dnn.reading import PathOrBuffer, read_net_from_caffe
from pycaffe.errors import MissingExtra

__all__ = ["install", "uninstall"]

MODELS = (Model, ClassificationModel, DetectionModel, KeypointsModel, SegmentationModel)
CAFFE_SUFFIXES = (".caffemodel", ".prototxt")
_ABSENT = object()
_replaced: list[tuple[Any, str, Any]] = []  # (module, name, what was there)


def install() -> None:
    """Lets `cv2.dnn` read Caffe nets with pycaffe, on OpenCV 5 and on 4.

    `readNetFromCaffe` is there (again); `readNet` knows `.caffemodel` and `.prototxt`; `Model`, `ClassificationModel`,
    `DetectionModel`, `KeypointsModel` and `SegmentationModel` take what these give, or the two files. All other formats
    go to OpenCV as before. Called twice it does nothing the second time.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra.of("OpenCV", "images", "pycaffe.cv2dnn.install()") from error
    if _replaced:
        return
    _replace(cv2.dnn, "readNetFromCaffe", _read_net_from_caffe)
    _replace(cv2.dnn, "readNet", _read_net_of_any_kind(cv2.dnn.readNet))
    for ours in MODELS:
        chooser = _chooser(ours, getattr(cv2.dnn, ours.__name__))
        _replace(cv2.dnn, ours.__name__, chooser)
        _replace(cv2, f"dnn_{ours.__name__}", chooser)


def uninstall() -> None:
    """Gives `cv2.dnn` back as it was before `install`."""
    while _replaced:
        module, name, original = _replaced.pop()
        if original is _ABSENT:
            delattr(module, name)
        else:
            setattr(module, name, original)


def _replace(module: Any, name: str, value: Any) -> None:
    _replaced.append((module, name, getattr(module, name, _ABSENT)))
    setattr(module, name, value)


def _read_net_from_caffe(
    prototxt: PathOrBuffer = None,
    caffeModel: PathOrBuffer = None,
    *,
    bufferProto: PathOrBuffer = None,
    bufferModel: PathOrBuffer = None,
) -> Net:
    """`cv2.dnn.readNetFromCaffe(prototxt[, caffeModel])`, of paths or of buffers."""
    model = caffeModel if caffeModel is not None else bufferModel
    return read_net_from_caffe(prototxt if prototxt is not None else bufferProto, model)


def _read_net_of_any_kind(original: Any) -> Any:
    def read_net(*args: Any, **kwargs: Any) -> Any:
        """`cv2.dnn.readNet`: Caffe nets by pycaffe, all others by OpenCV."""
        named = dict(zip(("model", "config", "framework"), args), **kwargs)
        if "bufferModel" in named or (len(args) > 1 and not isinstance(args[1], (str, os.PathLike))):
            named = dict(zip(("framework", "bufferModel", "bufferConfig"), args), **kwargs)
            if str(named["framework"]).lower() == "caffe":
                return read_net_from_caffe(named.get("bufferConfig"), named["bufferModel"])
        elif str(named.get("framework", "")).lower() == "caffe" or _names_caffe(*named.values()):
            model, config = named.get("model") or None, named.get("config") or None
            if str(model).endswith(".prototxt") or str(config).endswith(".caffemodel"):
                model, config = config, model
            return read_net_from_caffe(config, model)
        return original(*args, **kwargs)

    return read_net


def _names_caffe(*values: Any) -> bool:
    return any(isinstance(v, (str, os.PathLike)) and os.fspath(v).endswith(CAFFE_SUFFIXES) for v in values)


def _chooser(ours: type[Model], original: Any) -> type[Model]:
    """A class that makes one of `ours` from a Caffe net, and one of OpenCV's from anything else."""

    def choose(cls: type[Model], *args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if cls is not chooser or any(isinstance(value, Net) for value in given) or _names_caffe(*given):
            return object.__new__(cls)
        return original(*args, **kwargs)

    names = {"__new__": choose, "__doc__": ours.__doc__, "__module__": "cv2.dnn"}
    chooser: type[Model] = type(ours.__name__, (ours,), names)
    return chooser
