r"""CSV: a header, then one record a line: the path, a field for each value, the error (empty for none).

Text is always in quotes, numbers never; lines end with \n. An array has a field for each value: fc7_0, fc7_1, ….

Where a record has any number of values it has as many lines, or one without values; `count` says how many, so that a
record whose last lines are missing can be told.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pycaffe.cli._sinks.log import Entry
from pycaffe.cli._sinks.numbers import float_texts
from pycaffe.cli._sinks.rows import Column, Row, Table, count_of, printable
from pycaffe.errors import DataError

__all__ = ["CsvCodec"]


class CsvCodec:
    """Records as lines of UTF-8; what is no valid Unicode in a path becomes an escape."""

    def __init__(self, table: Table) -> None:
        self._once = [column for column in table.columns if not column.many]
        self._many = [column for column in table.columns if column.many]
        once, many = ([name for column in columns for name in _fields(column)] for columns in (self._once, self._many))
        names = ["path", *once, *(["count", *many] if self._many else []), "error"]
        self._count_field = 1 + len(once)
        self._no_many = [""] * len(many)
        self._width = len(names)
        self.header = (",".join(map(_quoted, names)) + "\n").encode()
        self._no_values = "," * (self._width - 1)

    def encode(self, row: Row) -> bytes:
        """Its lines."""
        path, values = _quoted(row.path), row.values
        if values is None:
            return f"{path}{self._no_values}{_quoted(row.error or '')}\n".encode()
        fields = [path, *(_text(column, values[column.name]) for column in self._once)]
        if not self._many:
            return f"{','.join([*fields, _quoted('')])}\n".encode()
        count = count_of(self._many, values)
        several = [[_text(column, values[column.name][i]) for column in self._many] for i in range(count)]
        lines = [",".join([*fields, str(count), *each, _quoted("")]) for each in several or [self._no_many]]
        return "".join(f"{line}\n" for line in lines).encode()

    def entries(self, file: BinaryIO) -> Iterator[Entry]:
        """The records that are whole: a path may hold a line's end, so a line alone does not tell."""
        end = file.tell()
        whole = True
        missing = 0  # lines of the record that was begun

        def lines() -> Iterator[str]:
            nonlocal end, whole
            for line in file:
                whole = line.endswith(b"\n")
                end += len(line)
                yield line.decode("utf-8", "replace")

        rows = csv.reader(lines(), strict=True)
        while True:
            try:
                fields = next(rows, None)
            except csv.Error as error:
                if not file.read(1):
                    return  # quotes that nobody closed, at the end
                raise DataError(f"{file.name!r}, line {rows.line_num + 1}, is not a record: {error}.") from error
            if fields is None or not whole:
                return
            if len(fields) != self._width:
                raise DataError(
                    f"{file.name!r}, line {rows.line_num + 1}, has {len(fields)} fields. Expected {self._width}."
                )
            missing = missing - 1 if missing else self._more_lines(fields)
            if not missing:
                yield Entry(end, fields[0], bool(fields[-1]))

    def _more_lines(self, fields: list[str]) -> int:
        """How many lines a record has behind its first."""
        if not self._many or fields[-1]:
            return 0
        count = fields[self._count_field]
        if not count.isdecimal():
            raise DataError(f"{count!r} is no number of values, in the record of {fields[0]!r}.")
        return max(int(count) - 1, 0)


def _fields(column: Column) -> list[str]:
    if not column.shape:
        return [column.name]
    return [f"{column.name}_{index}" for index in range(column.size)]


def _text(column: Column, values: npt.NDArray[Any]) -> str:
    """The fields of a column."""
    flat = np.ravel(values)
    if column.dtype == "float32":
        return float_texts(flat)
    return ",".join(map(_quoted if column.dtype == "str" else str, flat.tolist()))


def _quoted(text: str) -> str:
    return '"' + printable(text).replace('"', '""') + '"'
