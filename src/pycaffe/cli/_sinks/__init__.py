"""Where records go: a file or standard output, in the format that its suffix names.

    Row ─→ Sink.write ─→ Log: appended at once, whole ─→ JSON Lines, CSV: that is the file
                                                    └──→ Parquet, NPZ, COCO: FILE.partial, of which FILE is made

What was written survives any end of the process. A log that ends in the middle of a record (a SIGKILL came) is cut off
there when the job is resumed. Parquet, NPZ and COCO's JSON have parts before or behind all records and cannot grow,
hence the log beside them: when the job is complete FILE appears, by rename, and FILE.partial goes; a job that stops
before leaves FILE.partial (and FILE as it was).

They are here and not in `workers/` because they know rows of paths and columns, and a pool knows items and arrays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import click

from pycaffe.cli._sinks.archive import ArchiveSink, Format
from pycaffe.cli._sinks.coco import CocoFormat
from pycaffe.cli._sinks.csv_lines import CsvCodec
from pycaffe.cli._sinks.json_lines import JsonCodec
from pycaffe.cli._sinks.lines import LinesSink
from pycaffe.cli._sinks.log import is_file
from pycaffe.cli._sinks.npz import NpzFormat
from pycaffe.cli._sinks.parquet import ParquetFormat
from pycaffe.cli._sinks.rows import Column, Row, Table
from pycaffe.cli._sinks.seen import SeenPaths

__all__ = ["Column", "FORMATS", "Row", "SeenPaths", "Sink", "Table", "format_of", "is_file", "open_sink"]

SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npz": "npz",
    ".json": "coco",
}
FORMATS = sorted(set(SUFFIXES.values()))
ARCHIVES: dict[str, Callable[[Any], Format]] = {"coco": CocoFormat, "npz": NpzFormat, "parquet": ParquetFormat}


class Sink(Protocol):
    """Takes rows, one by one. Every method may raise OSError: a disk is full, a reader has gone."""

    def holds_records(self) -> bool:
        """Whether anything was written before."""

    def resume(self, seen: SeenPaths) -> int:
        """Adds the paths of the good records to `seen`, returns their number, and takes the failed ones out."""

    def write(self, row: Row) -> None:
        """Appends one row."""

    def close(self, complete: bool) -> None:
        """Closes the file; `complete`: the job is at its end, and a format that is made at the end is made now."""


def format_of(name: str, asked: str | None, formats: Sequence[str] = FORMATS) -> str:
    """One of `formats`: the one that was asked for, else by the suffix of `name`; JSON Lines for standard output.

    Raises:
        click.UsageError: neither says which.
    """
    if asked is not None:
        return asked
    suffix = os.path.splitext(name)[1].lower()
    if name != "-" and is_file(name) and SUFFIXES.get(suffix) not in formats:
        known = ", ".join(suffix for suffix, format in SUFFIXES.items() if format in formats)
        raise click.UsageError(f"Unknown suffix {suffix!r} of {name!r}. Known: {known}; or give --format.")
    return SUFFIXES.get(suffix, "jsonl")


def open_sink(name: str, format: str, table: Table) -> Sink:
    """The sink for `format` (one of FORMATS); `name` is "-" for standard output.

    Raises:
        click.UsageError: the file cannot be written.
        MissingExtra: Parquet without pyarrow.
    """
    try:
        if format in ARCHIVES:
            return ArchiveSink(name, table, ARCHIVES[format](table))
        return LinesSink(name, JsonCodec(table) if format == "jsonl" else CsvCodec(table))
    except OSError as error:
        raise click.UsageError(f"Could not write {name!r}: {error.strerror}.") from error
