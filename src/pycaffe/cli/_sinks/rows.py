"""What a record is made of, before any format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "Row", "Table", "Values", "check_values", "count_of", "printable"]

Values = Mapping[str, "npt.NDArray[Any]"]


@dataclass(frozen=True)
class Column:
    """One value or array a record: `dtype` is "float32", "int64" or "str", `shape` is without an axis for records.

    many: a record has any number of them, along a first axis that all such columns of a table share.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    many: bool = False

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

    @property
    def formats(self) -> Sequence[str]:
        """The formats that it can be written in."""

    def json(self, values: Values) -> str:
        """What follows `"path": …, ` in a JSON record."""


def count_of(columns: Sequence[Column], values: Values) -> int:
    """How many of each `many` column a record has."""
    return next((len(values[column.name]) for column in columns if column.many), 0)


def printable(text: str) -> str:
    """`text` with what is no valid Unicode (the bytes of a foreign path) as escapes: some formats hold nothing else."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def check_values(columns: tuple[Column, ...], values: Values) -> str | None:
    """What is wrong with the shape of a value; None if nothing."""
    count = count_of(columns, values)
    for column in columns:
        shape = np.shape(values[column.name])
        expected = (count, *column.shape) if column.many else column.shape
        if shape != expected:
            return f"Blob {column.name!r} has shape {shape!r} for this image. Expected {expected!r}"
    return None
