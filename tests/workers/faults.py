"""Preprocessing functions that workers import, and that do what their item says, however bad. The deaths are real."""

from __future__ import annotations

import ctypes
import errno
import os
import pathlib
import resource
import signal
import sys
import threading
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe import ImagePreprocess
from tests.workers.tiny_net import SHAPE

SECONDS = 0.005  # that a slow item takes
SPOILED = -77.0  # the data of an item whose result does not pickle


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


def _slow(value: float, *padding: bytes) -> npt.NDArray[np.float32]:
    time.sleep(SECONDS)
    return filled(value)


def slow_image(item: Any) -> npt.NDArray[np.float32]:
    """An image, stretched to the tiny net's input."""
    time.sleep(SECONDS)
    return ImagePreprocess(resize=SHAPE[1:])(item)


def spoil(outputs: dict[str, npt.NDArray[np.float32]]) -> Any:
    """A `postprocess`: the scores, or for some data what does not pickle."""
    return threading.Lock() if outputs["data"][0, 0, 0] == SPOILED else outputs["score"]


class WithFullMemory:
    """A `preprocess`, as `act`; in the process that unpickles it shared memory is full after so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__dict__.update(state)
        fill_memory(self.room)

    def __call__(self, item: Any) -> Any:
        return act(item)


def fill_memory(room: int) -> None:
    """From now on the system has only so many bytes of shared memory for each direction of each worker."""
    fallocate = os.posix_fallocate

    def nearly_full(descriptor: int, offset: int, length: int) -> None:
        if offset % (64 << 20) + length > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fallocate(descriptor, offset, length)

    os.posix_fallocate = nearly_full


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
    "sleep": lambda seconds=600: time.sleep(seconds),
    "spoil": lambda: filled(SPOILED),
    "shape": lambda *shape: np.zeros(shape, np.float32),
    "environment": lambda: np.full(SHAPE, float(os.environ["OMP_NUM_THREADS"]), np.float32),
}
