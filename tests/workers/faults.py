"""Preprocessing functions that workers import, and that do what their item says, however bad. The deaths are real."""

from __future__ import annotations

import ctypes
import os
import pathlib
import resource
import signal
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.workers.tiny_net import SHAPE


class UnpicklableError(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class UnpicklesBadly:
    """Raises where it is unpickled."""

    def __reduce__(self) -> Any:
        return _raise, ("no such thing here",)


def _raise(text: str) -> None:
    raise LookupError(text)


def filled(value: float) -> npt.NDArray[np.float32]:
    """The data of an item without a fault."""
    return np.full(SHAPE, value, np.float32)


def act(item: Any) -> Any:
    """`item`: a number, for data filled with it; else (what to do, arguments ...)."""
    if isinstance(item, (int, float)):
        return filled(item)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name, *arguments = item
    return ACTIONS[name](*arguments)


def _die_once(marker: str, value: float) -> npt.NDArray[np.float32]:
    """Dies unless `marker` is there, and leaves it there."""
    if not os.path.exists(marker):
        pathlib.Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return filled(value)


def _slow(value: float) -> npt.NDArray[np.float32]:
    time.sleep(0.005)
    return filled(value)


def _announce_and_hang(marker: str) -> None:
    pathlib.Path(marker).write_text(str(os.getpid()), encoding="utf-8")
    time.sleep(600)


def _error(kind: str) -> None:
    if kind == "unpicklable":
        raise UnpicklableError("half", "half")
    raise ValueError("no good")


ACTIONS: dict[str, Any] = {
    "raise": _error,
    "sys.exit": sys.exit,
    "os._exit": os._exit,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "die once": _die_once,
    "slow": _slow,
    "hang": _announce_and_hang,
    "shape": lambda *shape: np.zeros(shape, np.float32),
    "environment": lambda: np.full(SHAPE, float(os.environ["OMP_NUM_THREADS"]), np.float32),
}
