"""The log of the formats that are made at the end: records with their values as bytes.

    length, CRC-32, length of the head (4 bytes each), head (JSON: path, error or texts, how many of `many` columns),
    numbers one after the other

The checksum says whether a record is whole. Behind one that is not nothing can be found, and it is cut off.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from pycaffe.cli._sinks.log import Entry
from pycaffe.cli._sinks.rows import Row, Table, Values, count_of

__all__ = ["JournalCodec"]

_FRAME = struct.Struct("<II")
_HEAD = struct.Struct("<I")


class _Record(NamedTuple):
    end: int
    row: Row


class JournalCodec:
    """Rows of a table, in binary."""

    header = b"pycaffe journal 1\n"

    def __init__(self, table: Table) -> None:
        self._columns = table.columns

    def encode(self, row: Row) -> bytes:
        """One record."""
        values = row.values
        head: dict[str, object] = {"path": row.path}
        numbers: list[bytes] = []
        if values is None:
            head["error"] = row.error
        else:
            texts = [column for column in self._columns if column.dtype == "str"]
            if any(column.many for column in self._columns):
                head["count"] = count_of(self._columns, values)
            head["texts"] = {column.name: np.ravel(values[column.name]).tolist() for column in texts}
            others = [column for column in self._columns if column.dtype != "str"]
            numbers = [np.asarray(values[column.name], column.dtype).tobytes() for column in others]
        encoded = json.dumps(head).encode("ascii")
        body = b"".join([_HEAD.pack(len(encoded)), encoded, *numbers])
        return _FRAME.pack(len(body), zlib.crc32(body)) + body

    def entries(self, file: BinaryIO) -> Iterator[Entry]:
        """The records that are whole."""
        for end, row in self._records(file):
            yield Entry(end, row.path, row.values is None)

    def rows(self, file: BinaryIO) -> Iterator[Row]:
        """The records behind the header."""
        file.seek(len(self.header))
        return (record.row for record in self._records(file))

    def _records(self, file: BinaryIO) -> Iterator[_Record]:
        end = file.tell()
        while True:
            frame = file.read(_FRAME.size)
            if len(frame) < _FRAME.size:
                return
            length, checksum = _FRAME.unpack(frame)
            body = file.read(length)
            if len(body) < length or zlib.crc32(body) != checksum:
                return
            end += len(frame) + length
            yield _Record(end, self._row(body))

    def _row(self, body: bytes) -> Row:
        (length,) = _HEAD.unpack_from(body)
        at = _HEAD.size + length
        head = json.loads(body[_HEAD.size : at])
        if "error" in head:
            return Row(head["path"], None, head["error"])
        values: dict[str, np.ndarray] = {}
        for column in self._columns:
            shape = (head["count"], *column.shape) if column.many else column.shape
            if column.dtype == "str":
                values[column.name] = np.array(head["texts"][column.name], dtype=object).reshape(shape)
            else:
                array = np.frombuffer(body, column.dtype, math.prod(shape), at)
                at += array.nbytes
                values[column.name] = array.reshape(shape)
        checked: Values = values
        return Row(head["path"], checked)
