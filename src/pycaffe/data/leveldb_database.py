"""LevelDB databases (util/db_leveldb.cpp), through the package `plyvel`.

LevelDB has no way to open a database for reading only: it takes a lock, so that one process at a time may read, and
writes a manifest, a log and compacted tables. So it is given a folder of links to the database's files, which it may
change as it likes; the database itself is never written, may lie on a read-only disk, and may be read by any number of
processes.

The folder goes with its reader. That of a reader which was killed is removed by the next one: a lock on the folder,
which ends with the process that holds it, tells whether its reader lives.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
import time
import weakref
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from pycaffe.data.database import Database, Record
from pycaffe.data.leveldb_files import check_files
from pycaffe.errors import DataError, MissingExtra

__all__ = ["LevelDbDatabase", "import_plyvel"]

NOT_LINKED = ("LOCK", "LOG", "LOG.old")
PREFIX = "pycaffe-leveldb-"
YOUNG_SECONDS = 60.0  # a folder of that age and without a lock is not one that is just being made


def import_plyvel(purpose: str) -> Any:
    """The module `plyvel`; `purpose` (a noun phrase) is for the error where it is not installed."""
    try:
        import plyvel
    except ImportError as error:
        raise MissingExtra.of("plyvel", "train", purpose) from error
    return plyvel


class LevelDbDatabase(Database):
    """A folder with `CURRENT`, `MANIFEST-*` and tables."""

    def _open(self) -> None:
        self._plyvel = import_plyvel("Reading LevelDB databases")
        try:
            os.stat(os.path.join(self.path, "CURRENT"))
        except PermissionError as error:
            raise DataError(
                f"Failed to open leveldb {self.source}. Permission denied: this user may not look into the folder."
            ) from error
        except OSError as error:
            raise DataError(
                f"Failed to open leveldb {self.source}. It should be a folder with a file CURRENT."
                f"{self._what_else('data.mdb', 'LMDB')}"
            ) from error
        try:
            check_files(self.path, self.source)
        except OSError as error:
            raise DataError(f"Failed to open leveldb {self.source}. {error.strerror}: {error.filename!r}.") from error
        self._folder = folder = self._folder_of_links()
        try:
            # Paranoid, because it would leave out what it cannot read in a log.
            self._database = self._plyvel.DB(folder, create_if_missing=False, max_open_files=100, paranoid_checks=True)
            # The raw iterator, because the other one ends without an error where the first block is damaged.
            self._iterator = self._database.raw_iterator(verify_checksums=True)
        except self._plyvel.Error as error:
            raise DataError(f"Failed to open leveldb {self.source}. {self._reason(error)}.") from error
        self._at_start = True

    def _folder_of_links(self) -> str:
        _remove_folders_of_the_dead()
        folder = tempfile.mkdtemp(prefix=PREFIX)
        weakref.finalize(self, _remove_folder, folder, _lock(folder), os.getpid())
        for entry in os.scandir(self.path):
            if entry.name in NOT_LINKED or not entry.is_file():
                continue
            try:
                os.symlink(entry.path, os.path.join(folder, entry.name))
            except OSError:  # a system, or a user, without links
                shutil.copyfile(entry.path, os.path.join(folder, entry.name))
        return folder

    def _rewind(self) -> None:
        self._at_start = True

    def _step(self) -> Record | None:
        try:
            if self._at_start:
                self._iterator.seek_to_first()
            else:
                self._iterator.next()
            self._at_start = False
            return self._iterator.item() if self._iterator.valid() else None
        except self._plyvel.Error as error:
            raise DataError(
                f"The leveldb {self.source!r} is damaged: {self._reason(error)}. Copy or make it again."
            ) from error

    def _seek(self, key: bytes) -> bool:
        self._iterator.seek(key)
        self._at_start = False
        return bool(self._iterator.valid()) and self._iterator.key() == key

    def _reason(self, error: Exception) -> str:
        """What an error of plyvel's says; they hold bytes."""
        reason = error.args[0] if error.args else ""
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        return text.replace(self._folder, self.source).rstrip(".")  # a link there leads here


def _lock(folder: str) -> int | None:
    """A descriptor that holds the folder's lock; None where another one does, or where there are no such locks."""
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def _remove_folder(folder: str, lock: int | None, pid: int) -> None:
    if os.getpid() == pid:  # a forked child that ends must leave the parent's folder alone
        shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        os.close(lock)


def _remove_folders_of_the_dead() -> None:
    for folder in glob.glob(os.path.join(glob.escape(tempfile.gettempdir()), f"{PREFIX}*")):
        with contextlib.suppress(OSError):  # another process removes it, too
            if time.time() - os.path.getmtime(folder) < YOUNG_SECONDS:
                continue
            lock = _lock(folder)
            if lock is not None:
                _remove_folder(folder, lock, os.getpid())
