"""Pickles that a worker can read, whatever they are made of, and quickly where they are made of ordinary things."""

from __future__ import annotations

import io
import pickle
import types
from collections.abc import Callable
from typing import Any

import cloudpickle

__all__ = ["dumps"]


class _OfMain(Exception):
    """Something that a worker cannot import."""


class _PlainPickler(pickle.Pickler):
    """Writes references to classes and functions, and gives up at those of `__main__`."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, (type, types.FunctionType)) and obj.__module__ == "__main__":
            raise _OfMain
        return NotImplemented


def dumps(
    message: object, keep_in_pickle: Callable[[pickle.PickleBuffer], bool], start_over: Callable[[], None]
) -> memoryview:
    """The pickle of a message. Functions and classes of `__main__`, and local ones, are written out.

    cloudpickle does that, and is several times slower; so it only comes in where there are any.

    Args:
        message: anything.
        keep_in_pickle: is asked about large buffers; those that it does not want in the pickle are its own business.
        start_over: is called where it will be asked about all buffers again.

    Raises:
        Exception: whatever pickling a user's object raises.
    """
    file = io.BytesIO()
    try:
        _PlainPickler(file, 5, buffer_callback=keep_in_pickle).dump(message)
    except Exception:
        start_over()
        file = io.BytesIO()
        cloudpickle.Pickler(file, 5, buffer_callback=keep_in_pickle).dump(message)
    return file.getbuffer()
