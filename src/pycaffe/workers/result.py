"""`Result`: what became of one item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Result"]


@dataclass(frozen=True)
class Result:
    """What became of one item of a `Pool`: outputs or an error, never both.

    Attributes:
        item: the item itself, as it was handed in.
        index: its place among the items, from 0.
        outputs: by blob name, this item's part of the blob (without the batch axis); None if it failed.
        error: the exception; None if it succeeded.
        attempts: how often the item ran by itself, with a worker's death held against it; 1 for an item that never did.
        worker: number of the worker that ran it last, from 0; -1 where none did.
        seconds: what this item took in its worker: preprocessing, and its share of the forward of its batch.
    """

    item: Any
    index: int
    outputs: dict[str, npt.NDArray[np.float32]] | None
    error: BaseException | None
    attempts: int
    worker: int
    seconds: float
