"""What goes through the pipe between a pool and a worker, and how things that do not pickle are kept from breaking it.

    pool → worker   a pickled Settings; then batches: pickled [(task number, pickled item), ...]
    worker → pool   Ready or Failed; then one BatchDone for each batch, in order

Each item is pickled by itself: one that does not pickle (or unpickle) is an error of that item and of nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import PoolError

__all__ = ["BatchDone", "Failed", "ItemDone", "Ready", "Settings", "picklable_error"]


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know."""

    model: Any
    weights: Any
    preprocess: Callable[[Any], Any] | None
    outputs: tuple[str, ...] | None
    batch_size: int


@dataclass(frozen=True)
class Ready:
    """The worker has loaded the net."""


@dataclass(frozen=True)
class Failed:
    """The worker cannot load the net; it ends."""

    error: BaseException


@dataclass(frozen=True)
class ItemDone:
    """One item: outputs by blob name, or an error."""

    number: int
    outputs: dict[str, npt.NDArray[np.float32]] | None
    error: BaseException | None
    seconds: float


@dataclass(frozen=True)
class BatchDone:
    """The oldest batch that was sent, item by item."""

    items: list[ItemDone]


def picklable_error(error: BaseException) -> BaseException:
    """`error`, or where it would not survive the pipe, or would end the process that raises it again, a PoolError."""
    if isinstance(error, Exception):
        try:
            if type(pickle.loads(pickle.dumps(error))) is type(error):
                return error
        except Exception:  # a user's exception may raise anything while it is pickled
            pass
    return PoolError(f"{type(error).__name__}: {error}")
