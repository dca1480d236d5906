"""What a record is made of, before any format."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "Row", "Table", "Values", "check_values", "printable"]

Values = Mapping[str, "npt.NDArray[Any]"]


@dataclass(frozen=True)
class Column:
    """One value or array a record: `dtype` is "float32", "int64" or "str", `shape` is without an axis for records."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many values a record has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Row:
    """What became of one image: values for each column, or an error; `attempts` counts for errors only."""

    path: str
    values: Values | None
    error: str | None = None
    attempts: int = 1


class Table(Protocol):
    """What a verb's records look like."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns besides `path` and `error`."""

    def json(self, values: Values) -> str:
        """What follows `"path": …, ` in a JSON record."""


def printable(text: str) -> str:
    """`text` with what is no valid Unicode (the bytes of a foreign path) as escapes: some formats hold nothing else."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_values(columns: tuple[Column, ...], values: Values) -> str | None:
    """What is wrong with the shape of a value; None if nothing."""
    for column in columns:
        shape = np.shape(values[column.name])
        if shape != column.shape:
            return f"Blob {column.name!r} has shape {shape!r} for this image. Expected {column.shape!r}"
    return None
