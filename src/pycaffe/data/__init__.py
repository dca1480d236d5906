"""Data sources and their transform to batches: LMDB, LevelDB, HDF5, image lists, window files; writers of databases."""

from __future__ import annotations

from pycaffe.data.database import Database
from pycaffe.data.database_writer import DatabaseWriter, write_database
from pycaffe.data.datum import datum_to_array, parse_datum
from pycaffe.data.open_database import open_database
from pycaffe.data.transformer import DataTransformer

__all__ = [
    "DataTransformer",
    "Database",
    "DatabaseWriter",
    "datum_to_array",
    "open_database",
    "parse_datum",
    "write_database",
]
