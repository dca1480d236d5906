"""LMDB databases (util/db_lmdb.cpp), through the package `lmdb`."""

from __future__ import annotations

import os
import threading
import weakref
from dataclasses import dataclass
from typing import Any

from pycaffe.data.database import Database, Record
from pycaffe.errors import DataError, MissingExtra

__all__ = ["LmdbDatabase", "import_lmdb"]


@dataclass
class _Shared:
    """LMDB allows one environment per file and process, and a train and a test net may read the same one."""

    environment: Any
    readers: int = 0


_shared: dict[tuple[int, str], _Shared] = {}
# Held until an environment is closed: its last reader may go away on one thread while another one opens the file.
# Re-entrant, because that may happen in a garbage collection anywhere.
_lock = threading.RLock()


def _renew_lock_in_child() -> None:
    """Another thread may have held it at the fork."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock_in_child)


def import_lmdb(purpose: str) -> Any:
    """The module `lmdb`; `purpose` (a noun phrase) is for the error where it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise MissingExtra.of("lmdb", "train", purpose) from error
    return lmdb


class LmdbDatabase(Database):
    """A folder with `data.mdb`. Sees the records of the moment it was opened."""

    def _open(self) -> None:
        self._lmdb = import_lmdb("Reading LMDB databases")
        key = (os.getpid(), os.path.realpath(self.path))
        with _lock:
            for inherited in [key for key in _shared if key[0] != os.getpid()]:
                _shared.pop(inherited).environment.close()  # LMDB would refuse to open the same file again
            if key not in _shared:
                _shared[key] = _Shared(self._open_environment())
            _shared[key].readers += 1
            weakref.finalize(self, _release, key).atexit = False
            self._cursor = _shared[key].environment.begin().cursor()
        self._at_start = True

    def _open_environment(self) -> Any:
        file = os.path.join(self.path, "data.mdb")
        try:
            size = os.stat(file).st_size
        except OSError as error:
            sentence = f"Check failed: mdb_status == 0 ({error.errno} vs. 0) {error.strerror}."
            if isinstance(error, PermissionError):
                raise DataError(f"{sentence} This user may not look into the folder {self.source!r}.") from error
            raise DataError(
                f"{sentence} No LMDB at {self.source!r}: it should be a folder with a file data.mdb."
                f"{self._what_else('CURRENT', 'LEVELDB')}"
            ) from error
        if size == 0:
            raise DataError(f"Could not open the LMDB {self.source!r}: its data.mdb is empty (0 bytes).")
        try:
            environment = self._open_files()
        except self._lmdb.Error as error:
            advice = " Close that environment first." if "already open" in str(error) else ""
            raise DataError(f"Could not open the LMDB {self.source!r}: {str(error).rstrip('.')}.{advice}") from error
        # Reading a page that a cut-off file lacks would kill the process with SIGBUS.
        expected = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if size < expected:
            environment.close()
            raise DataError(
                f"The LMDB {self.source!r} is truncated: data.mdb has {size!r} bytes, its header says {expected!r}. "
                "Copy or make it again."
            )
        return environment

    def _open_files(self) -> Any:
        """With a lock file, as the original; without one where the folder cannot be written."""
        try:
            return self._lmdb.open(self.path, readonly=True)
        except self._lmdb.Error:
            return self._lmdb.open(self.path, readonly=True, lock=False)

    def _rewind(self) -> None:
        self._at_start = True

    def _step(self) -> Record | None:
        try:
            found = self._cursor.first() if self._at_start else self._cursor.next()
            self._at_start = False
            return self._cursor.item() if found else None
        except self._lmdb.Error as error:
            raise DataError(f"The LMDB {self.source!r} is damaged: {error}.") from error

    def _seek(self, key: bytes) -> bool:
        found = bool(self._cursor.set_key(key))
        self._at_start = not found
        return found


def _release(key: tuple[int, str]) -> None:
    """A reader is gone."""
    if key[0] != os.getpid():  # it was the parent's
        return
    with _lock:
        _shared[key].readers -= 1
        if _shared[key].readers == 0:
            _shared.pop(key).environment.close()
