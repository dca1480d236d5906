"""JSON Lines: one record a line, the path first.

caffe classify  {"path": "a.jpg", "top": [{"index": 281, "label": "tabby", "score": 0.31}, …]}
caffe detect    {"path": "a.jpg", "width": 640, "height": 480, "detections": [{"class": 1, "score": …, "box": […]}, …]}
caffe extract   {"path": "a.jpg", "blobs": {"fc7": [0, 1.25, …]}}
a failure       {"path": "b.jpg", "error": "InputError: Could not decode 'b.jpg': it is empty", "attempts": 1}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import BinaryIO

from pycaffe.cli._sinks.log import Entry
from pycaffe.cli._sinks.rows import Row, Table
from pycaffe.errors import DataError

__all__ = ["JsonCodec"]


class JsonCodec:
    """Records as lines of ASCII, so that a path that is no valid UTF-8 survives as an escape."""

    header = b""

    def __init__(self, table: Table) -> None:
        self._table = table

    def encode(self, row: Row) -> bytes:
        """One line."""
        if row.values is None:
            rest = f'"error": {json.dumps(row.error)}, "attempts": {row.attempts}'
        else:
            rest = self._table.json(row.values)
        return f'{{"path": {json.dumps(row.path)}, {rest}}}\n'.encode("ascii")

    def entries(self, file: BinaryIO) -> Iterator[Entry]:
        """The lines that are whole. Only the path is parsed: a line of features may be long."""
        decoder = json.JSONDecoder()
        begin = '{"path": '
        end = file.tell()
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                text = line.decode("ascii")
                if not text.startswith(begin):
                    raise ValueError("no path")
                path, after = decoder.raw_decode(text, len(begin))
            except ValueError as error:
                raise DataError(
                    f"{file.name!r}, line {number}, is not a record of this command: {line[:60]!r}."
                ) from error
            yield Entry(end, path, text.startswith(', "error": ', after))
