"""A file that records are appended to, each whole, and that can be opened again after any end of the process."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple, Protocol

from pycaffe.cli._sinks.rows import Row
from pycaffe.cli._sinks.seen import SeenPaths
from pycaffe.errors import DataError
from pycaffe.proto.replace_file import replacing

__all__ = ["Codec", "Entry", "Log", "is_file"]


class Entry(NamedTuple):
    """A whole record of a log: it ends before byte `end`."""

    end: int
    path: str
    failed: bool


class Codec(Protocol):
    """How records are spelled in a log."""

    header: bytes  # stands before the first record

    def encode(self, row: Row) -> bytes:
        """The bytes of one record."""

    def entries(self, file: BinaryIO) -> Iterable[Entry]:
        """The records behind the header, in order, up to the end or to one that is not whole.

        Raises:
            DataError: a whole record is not one of ours.
        """


class Log:
    """Records in a file, without a buffer: what is written survives any end of this process.

    Args:
        name: a path, "-" for standard output, or None for a file that has no name and goes with the process.
        codec: how records are spelled.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, name: str | None, codec: Codec) -> None:
        self._name = name
        self._codec = codec
        self._own = name != "-"
        if name is None:
            with tempfile.TemporaryFile() as file:
                self._descriptor = os.dup(file.fileno())
        elif name == "-":
            sys.stdout.flush()
            self._descriptor = sys.stdout.fileno()
        else:
            self._open(name)
        self._began = self.size > 0

    @property
    def size(self) -> int:
        """Bytes; 0 for what is no file."""
        return os.fstat(self._descriptor).st_size if self._own else 0

    def resume(self, seen: SeenPaths) -> int:
        """Adds the paths of the good records to `seen` and returns their number.

        Cuts off a record that is not whole, and takes out failed records and those of paths that are in `seen` already.
        """
        header = self._codec.header
        good: list[tuple[int, int]] = []  # stretches of bytes that stay: one, but for failed records between
        count = 0
        with self.reader() as file:
            file.seek(0)
            begin = len(header)
            found = file.read(begin)
            if not header.startswith(found):
                raise DataError(f"{self._name!r} is not a file of this job: it begins with {found[:60]!r}.")
            for end, path, failed in self._codec.entries(file):
                if not failed and seen.add(path):
                    count += 1
                    if good and good[-1][1] == begin:
                        good[-1] = (good[-1][0], end)
                    else:
                        good.append((begin, end))
                begin = end
        if len(good) > 1 or (good and good[0][0] != len(header)):
            self._keep(good)
        else:
            os.ftruncate(self._descriptor, good[0][1] if good else 0)
        self._began = self.size > 0
        return count

    def write(self, row: Row) -> None:
        """Appends one record.

        Raises:
            OSError: it cannot be written; a file is as it was before then.
        """
        data = self._codec.encode(row)
        if not self._began:
            data = self._codec.header + data
            self._began = True
        self._append(data)

    def reader(self) -> BinaryIO:
        """The file, to be read; it has one position."""
        return open(self._descriptor, "rb", closefd=False)

    def close(self) -> None:
        """Closes the file."""
        if self._own:
            os.close(self._descriptor)

    def remove(self) -> None:
        """Closes the file and removes it."""
        self.close()
        if self._name is not None and self._own:
            os.unlink(self._name)

    def _open(self, name: str) -> None:
        access = os.O_RDWR if is_file(name) else os.O_WRONLY  # a pipe's reader would not be missed by who may read
        self._descriptor = os.open(name, access | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        written = 0
        try:
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
        except OSError as error:
            if self.size and written:  # the disk is full: a file of whole records is worth more than half a record
                os.ftruncate(self._descriptor, self.size - written)
            error.filename = self._name
            raise

    def _keep(self, stretches: list[tuple[int, int]]) -> None:
        """Writes the file anew, by rename, with these stretches only."""
        assert self._name is not None  # a file without a name is never resumed
        with replacing(self._name) as temporary, self.reader() as old, open(temporary, "wb") as new:
            shutil.copymode(self._name, temporary)
            new.write(self._codec.header)
            for begin, end in stretches:
                old.seek(begin)
                _copy(old, new, end - begin)
            new.flush()
            os.fsync(new.fileno())
        os.close(self._descriptor)
        self._open(self._name)


def is_file(name: str) -> bool:
    """Whether `name` is a file, there already or not, and no pipe, device or standard output."""
    if name == "-":
        return False
    try:
        return stat.S_ISREG(os.stat(name).st_mode)
    except OSError:
        return True


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would write \r\n


def _copy(source: BinaryIO, target: BinaryIO, size: int) -> None:
    while size:
        block = source.read(min(size, 1 << 20))
        target.write(block)
        size -= len(block)
