"""Whether the files of a LevelDB are all there and whole, told from its manifest.

LevelDB takes a log that ends in the middle of a record for one whose writer died, and reads what is before; a log that
is missing for one that it has deleted itself; and it looks at a table only when a record of it is read. So a database
that was copied in part would train on fewer records without a word, or fail hours later.

The formats are those of LevelDB's doc/log_format.md and of its db/version_edit.cc.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from pycaffe.errors import DataError

__all__ = ["check_files"]

BLOCK, HEADER = 32768, 7  # bytes; a header is a checksum (4), a length (2), and what part of a record follows (1)
NOTHING, FULL, FIRST, LAST = 0, 1, 2, 4
COMPARATOR, LOG_NUMBER, NEXT_FILE, LAST_SEQUENCE, COMPACT_POINTER, DELETED_FILE, NEW_FILE, PREVIOUS_LOG = (
    1, 2, 3, 4, 5, 6, 7, 9,
)  # fmt: skip


def check_files(folder: str, source: str) -> None:
    """Checks the tables and logs that the newest manifest counts on. What LevelDB reports itself is left to it.

    Args:
        folder: the database, with a file CURRENT.
        source: as the user calls it.

    Raises:
        DataError: a log is missing or cut off, or a table is shorter than when it was written.
        OSError: a file cannot be read.
    """
    with open(os.path.join(folder, "CURRENT"), "rb") as file:
        manifest = os.path.join(folder, os.fsdecode(file.read().strip()))
    if not os.path.isfile(manifest):
        return
    try:
        version = _read_manifest(manifest)
    except (IndexError, ValueError):
        return
    for number, size in sorted(version.tables.items()):
        _check_table(folder, source, number, size)
    if version.log_number and not os.path.exists(os.path.join(folder, f"{version.log_number:06d}.log")):
        raise DataError(
            f"Failed to open leveldb {source}. Its file {version.log_number:06d}.log, which holds the last records, is "
            "missing, or its manifest is cut off. Copy or make it again."
        )
    for name in sorted(os.listdir(folder)):
        stem, suffix = os.path.splitext(name)
        if suffix == ".log" and stem.isdecimal() and int(stem) >= version.log_number:
            _check_log(os.path.join(folder, name), source)


@dataclass
class _Version:
    """What a manifest says: the number of the oldest log that counts (0 for none), and the sizes of the tables."""

    log_number: int = 0
    tables: dict[int, int] = field(default_factory=dict)


def _check_table(folder: str, source: str, number: int, size: int) -> None:
    for name in (f"{number:06d}.ldb", f"{number:06d}.sst"):
        path = os.path.join(folder, name)
        if os.path.exists(path) and os.path.getsize(path) < size:
            raise DataError(
                f"Failed to open leveldb {source}. Its table {name} is truncated: it has {os.path.getsize(path)!r} "
                f"bytes, the manifest says {size!r}. Copy or make it again."
            )


def _check_log(path: str, source: str) -> None:
    with open(path, "rb") as file:
        size = os.path.getsize(path)
        file.seek(max(size - 1, 0) // BLOCK * BLOCK)  # a record's parts do not go beyond their block
        parts = list(_parts(file.read()))
    if parts and (parts[-1][1] is None or parts[-1][0] not in (FULL, LAST)):
        raise DataError(
            f"Failed to open leveldb {source}. Its file {os.path.basename(path)} is cut off: it ends ({size!r} bytes) "
            "inside a record, so that records are lost. Copy or make it again. (To go on with those that are whole let "
            f'LevelDB drop the rest: python -c "import plyvel; plyvel.DB({source!r}).close()")'
        )


def _parts(data: bytes) -> Iterator[tuple[int, bytes | None]]:
    """The parts of records in the blocks of a log: kind and content; the content is None where it is cut off."""
    at = 0
    while at < len(data):
        if BLOCK - at % BLOCK < HEADER:  # too little for a header: zeros up to the next block
            at += BLOCK - at % BLOCK
            continue
        length = int.from_bytes(data[at + 4 : at + 6], "little")
        kind, end = data[at + 6] if at + 6 < len(data) else FIRST, at + HEADER + length
        if kind == NOTHING:  # old releases lengthen a file in advance, with zeros
            return
        yield kind, data[at + HEADER : end] if end <= len(data) else None
        at = end


def _read_manifest(path: str) -> _Version:
    """Takes the changes of the records that are whole, one after the other.

    Raises:
        IndexError, ValueError: it is damaged.
    """
    version, record = _Version(), b""
    with open(path, "rb") as file:
        for kind, content in _parts(file.read()):
            if content is None:
                break
            record = content if kind in (FULL, FIRST) else record + content
            if kind in (FULL, LAST):
                _apply(version, _Fields(record))
    return version


class _Fields:
    """The fields of a record of the manifest, from its beginning."""

    def __init__(self, record: bytes) -> None:
        self._record = record
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._record)

    def number(self) -> int:
        """The next number: seven bits a byte, the lowest first."""
        value = shift = 0
        while True:
            byte = self._record[self._at]
            self._at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def skip_text(self) -> None:
        """Skips a key or a name, which begins with its length."""
        length = self.number()
        self._at += length


def _apply(version: _Version, fields: _Fields) -> None:
    while fields:
        tag = fields.number()
        if tag == COMPARATOR:
            fields.skip_text()
        elif tag == LOG_NUMBER:
            version.log_number = fields.number()
        elif tag in (NEXT_FILE, LAST_SEQUENCE, PREVIOUS_LOG):
            fields.number()
        elif tag == COMPACT_POINTER:
            fields.number()  # the level
            fields.skip_text()
        elif tag == DELETED_FILE:
            fields.number()
            version.tables.pop(fields.number(), None)
        elif tag == NEW_FILE:
            fields.number()
            table = fields.number()
            version.tables[table] = fields.number()
            fields.skip_text()  # the smallest key
            fields.skip_text()  # the largest one
        else:
            raise ValueError(f"Unknown tag {tag!r}.")
