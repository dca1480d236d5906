"""Data sources: LMDB, LevelDB, HDF5, image lists and window files, and the transform that makes batches of them."""

from __future__ import annotations

from pycaffe.data.database import Database
from pycaffe.data.datum import datum_to_array, parse_datum
from pycaffe.data.open_database import open_database
from pycaffe.data.transformer import DataTransformer

__all__ = ["DataTransformer", "Database", "datum_to_array", "open_database", "parse_datum"]
