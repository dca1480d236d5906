"""The right kind of database for a folder."""

from __future__ import annotations

from pycaffe.data.database import Database
from pycaffe.data.leveldb_database import LevelDbDatabase
from pycaffe.data.lmdb_database import LmdbDatabase
from pycaffe.errors import DataError

__all__ = ["LEVELDB", "LMDB", "open_database"]

LEVELDB, LMDB = 0, 1  # DataParameter.DB


def open_database(source: str, backend: int) -> Database:
    """Opens the folder `source` as LMDB or LEVELDB (values of DataParameter.DB).

    Raises:
        DataError: it is missing, damaged, truncated or empty.
        MissingExtra: `lmdb` or `plyvel` is not installed.
    """
    if backend == LMDB:
        return LmdbDatabase(source)
    if backend == LEVELDB:
        return LevelDbDatabase(source)
    raise DataError(f"Unknown database backend: {backend!r} (known: LEVELDB = {LEVELDB}, LMDB = {LMDB}).")
