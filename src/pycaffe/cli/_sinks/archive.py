"""The sink of a format that cannot be appended to: a journal beside the file, of which the file is made.

    write ─→ FILE.partial (journal) ─close(complete)─┐
             FILE, of an earlier job (resumed) ──────┴─→ new FILE, by rename ─→ FILE.partial is removed

A SIGKILL between rename and removal leaves records in both: what FILE holds is taken out of the journal when the job is
resumed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Protocol

from pycaffe.cli._sinks.journal import JournalCodec
from pycaffe.cli._sinks.log import Log, is_file
from pycaffe.cli._sinks.rows import Row, Table
from pycaffe.cli._sinks.seen import SeenPaths
from pycaffe.proto.replace_file import replacing

__all__ = ["ArchiveSink", "Format"]


class Format(Protocol):
    """How a finished file is made and read."""

    def make(self, rows: Callable[[], Iterable[Row]], target: Any) -> None:
        """Writes rows, which can be asked for several times, to a name or a binary file."""

    def good_rows(self, name: str) -> Iterator[Row]:
        """The rows of a file that `make` wrote which did not fail, a bounded number of them in memory.

        Raises:
            DataError: the file is damaged or another program's.
        """

    def paths(self, name: str) -> Iterator[tuple[str, bool]]:
        """Path and whether it failed, for each row."""


class ArchiveSink:
    """Parquet, NPZ or COCO's JSON, to a file or standard output ("-")."""

    def __init__(self, name: str, table: Table, format: Format) -> None:
        self._name = name
        self._codec = JournalCodec(table)
        self._format = format
        self._named = is_file(name)
        self._log = Log(f"{name}.partial" if self._named else None, self._codec)
        self._rewrite = True

    def holds_records(self) -> bool:
        """Whether there is a file or a journal with anything in it."""
        return self._log.size > 0 or (self._named and os.path.exists(self._name) and os.path.getsize(self._name) > 0)

    def resume(self, seen: SeenPaths) -> int:
        """See `Sink`. The failed rows of a finished file are left out when it is made anew."""
        count = 0
        failures = False
        for path, failed in self._finished_paths():
            failures |= failed
            if not failed:
                count += seen.add(path)
        journalled = self._log.resume(seen)
        self._rewrite = failures or journalled > 0 or not os.path.exists(self._name)
        return count + journalled

    def write(self, row: Row) -> None:
        """See `Sink`."""
        self._log.write(row)
        self._rewrite = True

    def close(self, complete: bool) -> None:
        """See `Sink`."""
        if not complete or not self._rewrite:
            if self._log.size:
                self._log.close()
            else:
                self._log.remove()
            return
        try:
            if self._named:
                with replacing(self._name) as temporary:
                    self._format.make(self._rows, temporary)
                    _settle(temporary, self._name)
            else:
                self._make_stream()
        except BaseException:
            self._log.close()
            raise
        self._log.remove()

    def _finished_paths(self) -> Iterator[tuple[str, bool]]:
        if os.path.exists(self._name) and os.path.getsize(self._name):
            yield from self._format.paths(self._name)

    def _rows(self) -> Iterator[Row]:
        if self._named and os.path.exists(self._name) and os.path.getsize(self._name):
            yield from self._format.good_rows(self._name)
        with self._log.reader() as file:
            yield from self._codec.rows(file)

    def _make_stream(self) -> None:
        """To a pipe or standard output, by way of a file: what is made needs to go back in it."""
        with tempfile.TemporaryFile() as made, _binary(self._name) as out:
            self._format.make(self._rows, made)
            made.seek(0)
            shutil.copyfileobj(made, out)
            out.flush()


def _settle(temporary: str, name: str) -> None:
    """On the disk before the name says so, with the access rights of the file that it replaces."""
    if os.path.exists(name):
        shutil.copymode(name, temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def _binary(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
    else:
        with open(name, "wb") as file:
            yield file
