"""Parquet, by pyarrow: `path`, a list of fixed length for each column, `error` (null for none).

An array of several axes is stored flat; the field's metadata `shape` has its shape.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.cli._sinks.rows import Column, Row, Table, printable
from pycaffe.errors import DataError, MissingExtra

__all__ = ["ParquetFormat"]

GROUP_BYTES = 32 << 20  # of numbers in a row group
GROUP_ROWS = 16384


class ParquetFormat:
    """Makes and reads Parquet files of a table.

    Raises:
        MissingExtra: pyarrow is not installed.
    """

    def __init__(self, table: Table) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtra.of("pyarrow", "parquet", "writing Parquet") from error
        self._arrow: Any = pyarrow
        self._columns = table.columns
        self._schema = pyarrow.schema(
            [
                pyarrow.field("path", pyarrow.string(), nullable=False),
                *map(self._field, table.columns),
                pyarrow.field("error", pyarrow.string()),
            ]
        )
        row_bytes = 4 * sum(column.size for column in table.columns)
        self._group = max(1, min(GROUP_ROWS, GROUP_BYTES // max(1, row_bytes)))

    def make(self, rows: Callable[[], Iterable[Row]], target: Any) -> None:
        """Writes rows to a name or a binary file."""
        remaining = iter(rows())
        with self._arrow.parquet.ParquetWriter(target, self._schema) as writer:
            while group := list(itertools.islice(remaining, self._group)):
                writer.write_table(self._arrow.table(self._arrays(group), schema=self._schema))

    def good_rows(self, name: str) -> Iterator[Row]:
        """The rows of a file that did not fail, a group of them in memory."""
        for batch in self._batches(name, None):
            good = batch.filter(batch.column("error").is_null())
            arrays = [self._numpy(good.column(column.name), column) for column in self._columns]
            for index, path in enumerate(good.column("path").to_pylist()):
                yield Row(path, {column.name: array[index] for column, array in zip(self._columns, arrays)})

    def paths(self, name: str) -> Iterator[tuple[str, bool]]:
        """Path and whether it failed, for each row."""
        for batch in self._batches(name, ["path", "error"]):
            errors = batch.column("error").is_null().to_pylist()
            yield from zip(batch.column("path").to_pylist(), (not null for null in errors))

    def _batches(self, name: str, columns: list[str] | None) -> Iterator[Any]:
        try:
            with self._arrow.parquet.ParquetFile(name) as file:
                if not file.schema_arrow.equals(self._schema):
                    raise DataError(f"{name!r} has other columns: {file.schema_arrow.names!r}.")
                yield from file.iter_batches(batch_size=self._group, columns=columns)
        except self._arrow.ArrowException as error:
            raise DataError(f"{name!r} is no Parquet file that can be read: {error}") from error

    def _field(self, column: Column) -> Any:
        arrow = self._arrow
        kind = {"float32": arrow.float32, "int64": arrow.int64, "str": arrow.string}[column.dtype]()
        if not column.shape:
            return arrow.field(column.name, kind)
        return arrow.field(column.name, arrow.list_(kind, column.size), metadata={"shape": json.dumps(column.shape)})

    def _arrays(self, rows: list[Row]) -> list[Any]:
        arrow = self._arrow
        arrays = [arrow.array([printable(row.path) for row in rows], arrow.string())]
        for column, field in zip(self._columns, list(self._schema)[1:-1]):
            values: list[Any] = [row.values and np.ravel(row.values[column.name]) for row in rows]
            if not column.shape:
                values = [None if value is None else value.tolist()[0] for value in values]
            elif column.dtype == "str":
                values = [None if value is None else [printable(text) for text in value] for value in values]
            arrays.append(arrow.array(values, field.type))
        errors = [None if row.error is None else printable(row.error) for row in rows]
        return [*arrays, arrow.array(errors, arrow.string())]

    def _numpy(self, array: Any, column: Column) -> npt.NDArray[Any]:
        """(rows, *shape)."""
        flat = array.flatten() if column.shape else array
        if column.dtype == "str":
            values = np.array(flat.to_pylist(), dtype=object)
        else:
            values = flat.to_numpy(zero_copy_only=False)
        return values.reshape(len(array), *column.shape)
