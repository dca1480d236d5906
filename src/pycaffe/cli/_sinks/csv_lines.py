r"""CSV: a header, then one record a line: the path, a field for each value, the error (empty for none).

Text is always in quotes, numbers never; lines end with \n. An array has a field for each value: fc7_0, fc7_1, ….
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pycaffe.cli._sinks.log import Entry
from pycaffe.cli._sinks.numbers import float_texts
from pycaffe.cli._sinks.rows import Column, Row, Table, printable
from pycaffe.errors import DataError

__all__ = ["CsvCodec"]


class CsvCodec:
    """Records as lines of UTF-8; what is no valid Unicode in a path becomes an escape."""

    def __init__(self, table: Table) -> None:
        self._columns = table.columns
        names = ["path", *(name for column in self._columns for name in _fields(column)), "error"]
        self._width = len(names)
        self.header = (",".join(map(_quoted, names)) + "\n").encode()
        self._no_values = "," * (self._width - 1)

    def encode(self, row: Row) -> bytes:
        """One line."""
        path, values = _quoted(row.path), row.values
        if values is None:
            return f"{path}{self._no_values}{_quoted(row.error or '')}\n".encode()
        fields = [path, *(_text(column, values[column.name]) for column in self._columns), _quoted("")]
        return f"{','.join(fields)}\n".encode()

    def entries(self, file: BinaryIO) -> Iterator[Entry]:
        """The records that are whole: a path may hold a line's end, so a line alone does not tell."""
        end = file.tell()
        whole = True

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
            yield Entry(end, fields[0], bool(fields[-1]))


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
