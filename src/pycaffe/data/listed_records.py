"""The records of a list, in order, into a database: what convert_imageset and convert_annoset have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pycaffe.data.database_writer import DatabaseWriter
from pycaffe.errors import DataError, InputError
from pycaffe.rng import child_generator
from pycaffe.threads import available_cores

__all__ = ["Record", "ToolLog", "write_listed_records"]

PROGRESS = 1000  # images between two log lines
Line = TypeVar("Line", bound="tuple[str, Any]")
"""The path of an image, and what the list says of it."""


class Record(NamedTuple):
    """A message to store and the shape (H, W, C) of its image."""

    message: Any
    shape: tuple[int, ...]


class ToolLog(NamedTuple):
    """Where a tool of the original logs what: its source file, and the lines of its messages."""

    logger: logging.Logger
    file: str
    shuffling: int
    total: int
    encode_type: int
    progress: int
    end: int

    def info(self, message: str, line: int) -> None:
        """Logs as that line of the original's source."""
        self.logger.info(message, extra={"place": f"{self.file}:{line}"})


def write_listed_records(
    list_file: str,
    lines: Sequence[Line],
    path: str,
    make: Callable[[Line], Record],
    failed: Callable[[str, InputError], None],
    log: ToolLog,
    *,
    assumes_encoded: bool,
    backend: str,
    shuffle: bool,
    check_size: bool,
) -> int:
    """Makes a database of the lines of a list, read on several threads.

    Args:
        list_file: the list's name, for messages.
        lines: of the list.
        path: the database's folder; nothing may be there yet.
        make: a line's record, or InputError where its image cannot be read: then it is left out.
        failed: is told the path and the error of such a line.
        log: where the original logs.
        assumes_encoded: an encode_type was given without `encoded`.
        backend: "lmdb" or "leveldb".
        shuffle: the records are stored in random order.
        check_size: an image of another size than the first is an error.

    Returns:
        The number of records. Their keys are the line's number and path, `00000007_some/path.jpg`.

    Raises:
        DataError: no image could be read, with `check_size` two differ, or the database cannot be made.
    """
    if shuffle:
        log.info("Shuffling data", log.shuffling)
        lines = [lines[index] for index in child_generator().permutation(len(lines))]
    log.info(f"A total of {len(lines)} images.", log.total)
    if assumes_encoded:
        log.info("encode_type specified, assuming encoded=true.", log.encode_type)
    with DatabaseWriter(path, backend) as writer, ThreadPoolExecutor(available_cores()) as threads:
        first: tuple[int, ...] | None = None
        for start in range(0, len(lines), PROGRESS):  # so many records at a time are in memory
            part = lines[start : start + PROGRESS]
            for number, ((name, _), record) in enumerate(zip(part, threads.map(_or_error(make), part)), start):
                if isinstance(record, InputError):
                    failed(name, record)
                    continue
                first = first or record.shape
                if check_size and record.shape != first:
                    raise DataError(
                        f"Incorrect data field size {np.prod(record.shape)}. Image {name!r} has the shape "
                        f"{record.shape!r}, the first one {first!r}."
                    )
                writer.put(f"{number:08d}_{name}".encode(errors="surrogateescape"), record.message)
                if writer.count % PROGRESS == 0:
                    log.info(f"Processed {writer.count} files.", log.progress)
        if writer.count == 0:
            raise DataError(f"None of the {len(lines)!r} images that {list_file!r} names could be read.")
    if writer.count % PROGRESS:
        log.info(f"Processed {writer.count} files.", log.end)
    return writer.count


def _or_error(make: Callable[[Line], Record]) -> Callable[[Line], Record | InputError]:
    def made(line: Line) -> Record | InputError:
        try:
            return make(line)
        except InputError as error:
            return error

    return made
