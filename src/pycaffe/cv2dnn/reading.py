"""Prototxt and caffemodel, files or buffers, to a `Net`.

OpenCV keeps a net by layers where Caffe keeps it by blobs: each layer has an output of its own, also where the prototxt
lets it work in place, so that `forward("conv1")` gives what conv1 computed and not what a ReLU made of it. The
prototxt is rewritten in that sense before the net is built; what is compiled stays the same.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import tempfile
from collections import Counter
from typing import Any

import numpy as np

from pycaffe.cv2dnn.net import Net
from pycaffe.cv2dnn.opencv_error import raising_opencv_errors
from pycaffe.errors import InputError, WeightsError
from pycaffe.net import TEST
from pycaffe.net import Net as CaffeNet
from pycaffe.proto.filter import filter_net
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.prototxt import parse_net, read_text

__all__ = ["read_net_from_caffe"]

DIALECT = "opencv"  # sizes of prior boxes keep their fractions, detections are filled up with zeros
PathOrBuffer = Any  # str, os.PathLike, or bytes, bytearray, memoryview, an array of uint8


@raising_opencv_errors
def read_net_from_caffe(prototxt: PathOrBuffer, caffemodel: PathOrBuffer | None = None) -> Net:
    """A net with the methods of `cv2.dnn.Net`, as `cv2.dnn.readNetFromCaffe` gave it.

    Args:
        prototxt: the path of a deploy prototxt, or its bytes. Fields that no Caffe knows are left out with a warning.
        caffemodel: the path of the weights, or their bytes. Without them parameters have what their fillers say.

    Raises:
        ProtoError, NetError, WeightsError: as `pycaffe.Net`; each is a `cv2.error` as well where OpenCV is installed.
    """
    path = _path_of(prototxt)
    text = read_text(path) if path is not None else _bytes_of(prototxt).decode("utf-8-sig", "replace")
    source = _with_own_outputs(parse_net(text, path or "", skip_unknown=True))
    weights = None if caffemodel is None else _path_of(caffemodel)
    # A buffer goes through a file that is gone when this returns, so its pages cannot stay mapped.
    net = CaffeNet(source, TEST, weights=weights or None, device="cpu", map_weights=weights is not None)
    if caffemodel is not None and weights is None:
        _copy_from_buffer(net, _bytes_of(caffemodel))
    return Net(net, source)


def _path_of(given: PathOrBuffer) -> str | None:
    """The path, or None for a buffer."""
    return os.fspath(given) if isinstance(given, (str, os.PathLike)) else None


def _bytes_of(buffer: PathOrBuffer) -> bytes:
    if isinstance(buffer, (bytes, bytearray, memoryview)):
        return bytes(buffer)
    if isinstance(buffer, np.ndarray) and buffer.dtype == np.uint8:
        return buffer.tobytes()
    raise InputError(f"Expected a path, bytes or an array of uint8, got {type(buffer).__name__}.")


def _copy_from_buffer(net: CaffeNet, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "buffer.caffemodel")
        file.write_bytes(content)
        try:
            net.copy_from(file)
        except WeightsError as error:
            raise WeightsError(str(error).replace(str(file), "(buffer)")) from None


def _with_own_outputs(source: NetSource) -> NetSource:
    """The net as it is in the TEST phase, with each layer's tops and name its own.

    The second layer of a name `x` is called `x_1`, as in OpenCV; the top of a layer that works in place has the
    layer's name, or the next that is free.
    """
    param = type(source.param)()
    param.CopyFrom(source.param)
    param.state.phase = TEST
    source = filter_net(dataclasses.replace(source, param=param))
    names: Counter[str] = Counter()
    taken = {top for layer in source.param.layer for top in layer.top}
    now: dict[str, str] = {}  # what a blob's latest values are called
    for index, layer in enumerate(source.param.layer):
        if index or not source.input_line:  # the Input layer that stands for old `input` fields has no name in OpenCV
            names[layer.name] += 1
            if names[layer.name] > 1:
                layer.name = f"{layer.name}_{names[layer.name] - 1}"
        in_place = [i for i, top in enumerate(layer.top) if i < len(layer.bottom) and top == layer.bottom[i]]
        for i, bottom in enumerate(layer.bottom):
            layer.bottom[i] = now.get(bottom, bottom)
        for i in in_place:
            original = layer.top[i]
            layer.top[i] = _free_name(layer.name, taken)
            taken.add(layer.top[i])
            now[original] = layer.top[i]
    return dataclasses.replace(source, dialect=DIALECT)


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 0
    while name in taken:
        number += 1
        name = f"{wanted}.{number}"
    return name
