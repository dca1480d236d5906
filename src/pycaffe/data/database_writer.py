"""Writes databases that Caffe's Data layer reads.

A database is written in a folder beside its place, and renamed when it is complete: a writer that was killed leaves a
hidden folder `.NAME.….tmp`, and nothing that looks like a database.
"""

from __future__ import annotations

import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.data.database import Record
from pycaffe.data.leveldb_database import import_plyvel
from pycaffe.data.lmdb_database import import_lmdb
from pycaffe.errors import DataError, InputError
from pycaffe.proto import schema

__all__ = ["DatabaseWriter", "write_database"]

RECORDS = 1000  # in a transaction, as the original's tools
FIRST_MAP_SIZE = 2**26  # an LMDB doubles it when it is full


class DatabaseWriter:
    """Makes a new database; used as a context manager, at whose end it is there, or after an error is not.

    Args:
        path: the database's folder; nothing may be there yet.
        backend: "lmdb" or "leveldb".

    Raises:
        DataError: the backend is unknown, the folder exists already or cannot be made.
        MissingExtra: `lmdb` or `plyvel` is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], backend: str = "lmdb") -> None:
        self.path = os.fspath(path)
        self.count = 0
        if backend not in BACKENDS:
            raise DataError(f"Unknown database backend: {backend!r} (known: {', '.join(sorted(BACKENDS))}).")
        place = os.path.abspath(self.path)
        if os.path.lexists(place):
            raise DataError(f"mkdir {self.path} failed: it exists already. Remove it, or write elsewhere.")
        folder, name = os.path.split(place)
        self._temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
        self._pending: list[Record] = []
        try:
            os.mkdir(self._temporary)
        except OSError as error:
            raise DataError(f"mkdir {self.path} failed: {error.strerror}.") from error
        try:
            self._files = BACKENDS[backend](self._temporary)
        except BaseException:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise

    def put(self, key: bytes, datum: Any) -> None:
        """Adds a record; one that has the same key is replaced. A Datum, or any message.

        Raises:
            DataError: the disk is full, or the backend refuses the record.
        """
        self._pending.append((key, datum.SerializeToString()))
        self.count += 1
        if len(self._pending) == RECORDS:
            self._commit()

    def _commit(self) -> None:
        try:
            self._files.write(self._pending)
        except self._files.errors as error:
            raise self._failure(error) from error
        self._pending = []

    def _failure(self, error: Exception) -> DataError:
        reason = str(error)
        if "Input/output error" in reason:
            reason += " (LMDB calls it so when the disk is full, too)"
        return DataError(f"Could not write the database {self.path!r}: {reason}.")

    def __enter__(self) -> DatabaseWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                if kind is None:
                    self._commit()
            finally:
                self._files.close()
            if kind is None:
                os.rename(self._temporary, os.path.abspath(self.path))
        except self._files.errors as failure:
            raise self._failure(failure) from failure
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)


class _Files(ABC):
    """The files of a new database in an empty folder."""

    errors: tuple[type[Exception], ...]
    """What its methods raise when they cannot write."""

    @abstractmethod
    def write(self, records: list[Record]) -> None:
        """Writes the records, all or none."""

    @abstractmethod
    def close(self) -> None:
        """Everything is on the disk."""


class _LmdbFiles(_Files):
    def __init__(self, folder: str) -> None:
        self._lmdb = import_lmdb("Writing LMDB databases")
        self.errors = (OSError, self._lmdb.Error)
        self._map_size = FIRST_MAP_SIZE
        self._environment = self._lmdb.open(folder, map_size=self._map_size, sync=False)  # but at the end

    def write(self, records: list[Record]) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except self._lmdb.MapFullError:
                self._map_size *= 2
                self._environment.set_mapsize(self._map_size)

    def close(self) -> None:
        self._environment.sync(True)
        self._environment.close()


class _LevelDbFiles(_Files):
    def __init__(self, folder: str) -> None:
        plyvel = import_plyvel("Writing LevelDB databases")
        self.errors = (OSError, plyvel.Error)
        self._database = plyvel.DB(folder, create_if_missing=True, error_if_exists=True, block_size=65536)

    def write(self, records: list[Record]) -> None:
        with self._database.write_batch(sync=True) as batch:
            for key, value in records:
                batch.put(key, value)

    def close(self) -> None:
        self._database.close()


BACKENDS = {"lmdb": _LmdbFiles, "leveldb": _LevelDbFiles}


def write_database(
    path: str | os.PathLike[str],
    images: Iterable[npt.ArrayLike | bytes],
    labels: Iterable[int] | None = None,
    backend: str = "lmdb",
) -> int:
    """Makes a database of images, which a Data layer reads in this order.

        pycaffe.data.write_database("train_lmdb", images, labels)

    Args:
        path: the database's folder; nothing may be there yet.
        images: each an array (C, H, W), uint8 or floating (stored as float32), colours as blue, green, red; or the
            bytes of an image file, stored as they are and decoded by the Data layer. May be a generator.
        labels: one integer for each image; without them all are 0.
        backend: "lmdb" or "leveldb".

    Returns:
        The number of records. Their keys are 00000000, 00000001, …

    Raises:
        InputError: an image is no such array, there are no images, or not one label for each.
        DataError: the database exists already or cannot be written. After any error there is no database.
    """
    nothing = object()
    with DatabaseWriter(path, backend) as writer:
        rest = iter(labels) if labels is not None else None
        for index, image in enumerate(images):
            label = 0 if rest is None else next(rest, nothing)
            if label is nothing:
                raise InputError(f"There are {index!r} labels and more images.")
            writer.put(b"%08d" % index, _datum(image, label, index))
        if writer.count == 0:
            raise InputError("There are no images to write.")
        if rest is not None and next(rest, nothing) is not nothing:
            raise InputError(f"There are {writer.count!r} images and more labels.")
        return writer.count


def _datum(image: npt.ArrayLike | bytes, label: Any, index: int) -> Any:
    try:
        datum = schema.Datum(label=int(label))
    except (TypeError, ValueError) as error:
        raise InputError(f"Label {index!r} is no integer of 32 bits: {label!r}.") from error
    if isinstance(image, bytes):
        datum.data, datum.encoded = image, True
        return datum
    array = np.asarray(image)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"An image is (channels, height, width), all positive. Image {index!r} is {array.shape!r}.")
    datum.channels, datum.height, datum.width = array.shape
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    elif np.issubdtype(array.dtype, np.floating):
        datum.float_data.extend(array.astype(np.float32).ravel().tolist())
    else:
        raise InputError(f"Image {index!r} holds {array.dtype.name!r}: convert it to uint8 or float32.")
    return datum
