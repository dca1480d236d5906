"""Key-value databases of records, as convert_imageset writes them: read in key order, over and over.

    open_database (a file of its own) ─→ LmdbDatabase | LevelDbDatabase
    peek() ─→ the next record          read() ─→ the same, and steps on; after the last comes the first

A process that was forked must not use the parent's handles: LMDB forbids it, and LevelDB's threads are not there. Each
database notices that it is in a child and opens its files again at the place where the parent was.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator

from pycaffe.errors import DataError

__all__ = ["Database", "Record", "working_directory"]

Record = tuple[bytes, bytes]
"""Key and value."""


class Database(ABC):
    """The records of one database in the order of their keys (util/db.hpp). It is opened for reading only.

    Args:
        source: the database's folder.

    Raises:
        DataError: it is missing, damaged, truncated or empty.
        MissingExtra: the library that reads it is not installed.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.path = os.path.abspath(source)  # the working directory may be another one when a child opens it again
        self._pid = os.getpid()
        self._last_key: bytes | None = None
        self._next: Record | None = None
        self._open()
        self.peek()

    def peek(self) -> Record:
        """The next record; stays there.

        Raises:
            DataError: the database is damaged at this place.
        """
        if self._pid != os.getpid():
            self.go_behind(self._last_key)
        if self._next is None:
            self._next = self._step()
            if self._next is None:
                self._rewind()
                self._next = self._step()
            if self._next is None:
                raise DataError(f"The database {self.source!r} is empty: it holds no record.")
        return self._next

    def read(self) -> Record:
        """The next record; steps on to the one after it."""
        record = self.peek()
        self._last_key, self._next = record[0], None
        return record

    def once(self) -> Iterator[Record]:
        """Every record once, from the first to the last; then the first is next."""
        self.go_behind(None)
        first = self.peek()[0]
        yield self.read()
        while self.peek()[0] != first:
            yield self.read()

    @property
    def last_key(self) -> bytes | None:
        """The key of the record that was read last; None where none was."""
        return self._last_key

    def go_behind(self, key: bytes | None) -> None:
        """Goes to the record after `key`; to the first for None.

        Raises:
            DataError: there is no record with that key.
        """
        if self._pid != os.getpid():
            self._open()
            self._pid = os.getpid()
        self._last_key, self._next = key, None
        if key is None:
            self._rewind()
        elif not self._seek(key):
            raise DataError(
                f"The database {self.source!r} has no record {key.decode(errors='replace')!r}, after which reading "
                "should go on. Was it made anew?"
            )

    def _what_else(self, file: str, backend: str) -> str:
        """For messages about a missing database: that it is of the other backend, which has such a file."""
        if os.path.exists(os.path.join(self.path, file)):
            return f" It is a database of the other kind: set backend: {backend}."
        return working_directory(self.source)

    @abstractmethod
    def _open(self) -> None:
        """Opens the files (again) before the first record."""

    @abstractmethod
    def _step(self) -> Record | None:
        """The record after the current place, which becomes the current one; None after the last."""

    @abstractmethod
    def _rewind(self) -> None:
        """Goes back before the first record."""

    @abstractmethod
    def _seek(self, key: bytes) -> bool:
        """Makes the record `key` the current one; False where there is none."""


def working_directory(path: str) -> str:
    """For messages about a missing file: where a relative path was looked for; empty for an absolute one."""
    return "" if os.path.isabs(path) else f" Relative paths are looked for in the working directory, {os.getcwd()!r}."
