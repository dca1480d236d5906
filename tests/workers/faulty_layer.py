"""Functions and a Python layer that do, at a chosen place on an item's way, what the item says. The deaths are real."""

from __future__ import annotations

import ctypes
import os
import pathlib
import resource
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

import caffe

SHAPE = (2, 3)
MODEL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 3 } } }
layer { name: "echo" type: "Python" bottom: "data" top: "echo"
        python_param { module: "tests.workers.faulty_layer" layer: "Echo" } }
"""


def _raise() -> None:
    raise ValueError("no good")


WHATS: dict[str, Callable[[], object]] = {
    "raise": _raise,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(5),
    "segfault": lambda: ctypes.string_at(0),
}
WHERES = ("unpickle item", "preprocess", "forward", "postprocess", "pickle result")
CODES = {(where, what): -(10 * i + j) for i, where in enumerate(WHERES, 1) for j, what in enumerate(WHATS, 1)}
MEANINGS = {code: meaning for meaning, code in CODES.items()}


def write_model(folder: pathlib.Path) -> str:
    model = folder / "echo.prototxt"
    model.write_text(MODEL, encoding="utf-8")
    return str(model)


def do(what: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    WHATS[what]()


class ActsWherePickled:
    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        do(self.what)
        return object, ()


class ActsWhereUnpickled:
    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return do, (self.what,)


def item(where: str, what: str) -> Any:
    return ActsWhereUnpickled(what) if where == "unpickle item" else CODES[where, what]


def _act_at(where: str, code: float) -> None:
    meaning = MEANINGS.get(int(code))
    if meaning is not None and meaning[0] == where:
        do(meaning[1])


def preprocess(value: float) -> npt.NDArray[np.float32]:
    _act_at("preprocess", value)
    return np.full(SHAPE, value, np.float32)


def postprocess(outputs: dict[str, npt.NDArray[np.float32]]) -> Any:
    code = float(outputs["echo"][1, 2])
    _act_at("postprocess", code)
    where, what = MEANINGS.get(int(code), ("", ""))
    return ActsWherePickled(what) if where == "pickle result" else code


class Echo(caffe.Layer):  # type: ignore[misc]
    """top = bottom, unless an item says otherwise."""

    def setup(self, bottom: Any, top: Any) -> None:
        pass

    def reshape(self, bottom: Any, top: Any) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Any, top: Any) -> None:
        for row in bottom[0].data:
            _act_at("forward", row[0, 0])
        top[0].data[...] = bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        pass
