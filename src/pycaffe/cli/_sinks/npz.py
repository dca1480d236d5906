"""NPZ: `path` (N,), for each column an array (N, …), and of what failed `failed` (M,) and `error` (M,).

An array begins with its shape, so every record has to be there before its first byte is written; and arrays lie one
behind another. So the rows are read once for each array, and only a block of them is in memory.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from pycaffe.cli._sinks.rows import Column, Row, Table
from pycaffe.errors import DataError

__all__ = ["NpzFormat"]

BLOCK_BYTES = 8 << 20  # of an array in memory


class NpzFormat:
    """Makes and reads .npz files of a table."""

    def __init__(self, table: Table) -> None:
        self._columns = table.columns

    def make(self, rows: Callable[[], Iterable[Row]], target: Any) -> None:
        """Writes rows, which are read several times, to a name or a binary file."""
        texts = [column for column in self._columns if column.dtype == "str"]
        good = failed = path_width = failed_width = error_width = 0
        widths = dict.fromkeys((column.name for column in texts), 0)
        for row in rows():
            if row.values is None:
                failed += 1
                failed_width = max(failed_width, len(row.path))
                error_width = max(error_width, len(row.error or ""))
                continue
            good += 1
            path_width = max(path_width, len(row.path))
            for column in texts:
                longest = max(map(len, np.ravel(row.values[column.name])), default=0)
                widths[column.name] = max(widths[column.name], longest)

        def each(wanted: bool, value: Callable[[Row], Any]) -> Iterator[Any]:
            return (value(row) for row in rows() if (row.values is not None) == wanted)

        with zipfile.ZipFile(target, "w") as archive:
            _write(archive, "path", f"<U{path_width or 1}", (good,), each(True, lambda row: row.path))
            for column in self._columns:
                dtype = f"<U{widths[column.name] or 1}" if column.dtype == "str" else column.dtype
                value = _value_of(column)
                _write(archive, column.name, dtype, (good, *column.shape), each(True, value))
            _write(archive, "failed", f"<U{failed_width or 1}", (failed,), each(False, lambda row: row.path))
            _write(archive, "error", f"<U{error_width or 1}", (failed,), each(False, lambda row: row.error))

    def good_rows(self, name: str) -> Iterator[Row]:
        """The rows of a file that did not fail, a block of each array in memory."""
        with _opened(name) as archive, contextlib.ExitStack() as stack:
            self._check(name, archive)
            arrays = [_read(stack, archive, key) for key in ("path", *(column.name for column in self._columns))]
            for path, *values in zip(*arrays):
                yield Row(str(path), dict(zip((column.name for column in self._columns), values)))

    def paths(self, name: str) -> Iterator[tuple[str, bool]]:
        """Path and whether it failed, for each row."""
        with _opened(name) as archive:
            self._check(name, archive)
            for key in ("path", "failed"):
                with contextlib.ExitStack() as stack:
                    for path in _read(stack, archive, key):
                        yield str(path), key == "failed"

    def _check(self, name: str, archive: zipfile.ZipFile) -> None:
        expected = {f"{key}.npy" for key in ("path", *(column.name for column in self._columns), "failed", "error")}
        if set(archive.namelist()) != expected:
            raise DataError(f"{name!r} has other arrays: {archive.namelist()!r}. Expected {sorted(expected)!r}.")


def _value_of(column: Column) -> Callable[[Row], Any]:
    def value(row: Row) -> Any:
        return None if row.values is None else row.values[column.name]

    return value


def _write(archive: zipfile.ZipFile, key: str, dtype: str, shape: tuple[int, ...], values: Iterator[Any]) -> None:
    text = dtype.startswith("<U")
    info = zipfile.ZipInfo(f"{key}.npy")
    info.external_attr = 0o644 << 16
    info.compress_type = zipfile.ZIP_DEFLATED if text else zipfile.ZIP_STORED  # texts are padded to the longest
    with archive.open(info, "w", force_zip64=True) as member:
        description = np.lib.format.dtype_to_descr(np.dtype(dtype))
        np.lib.format.write_array_header_1_0(
            cast(Any, member), {"descr": description, "fortran_order": False, "shape": shape}
        )
        while block := list(itertools.islice(values, _block_rows(dtype, shape))):
            member.write(np.asarray(block, dtype).reshape(len(block), *shape[1:]).tobytes())


def _block_rows(dtype: npt.DTypeLike, shape: tuple[int, ...]) -> int:
    return max(1, BLOCK_BYTES // max(1, np.dtype(dtype).itemsize * math.prod(shape[1:])))


@contextlib.contextmanager
def _opened(name: str) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(name) as archive:
            yield archive
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"{name!r} is no .npz file that can be read: {error}.") from error


def _read(stack: contextlib.ExitStack, archive: zipfile.ZipFile, key: str) -> Iterator[npt.NDArray[Any]]:
    """The rows of one array."""
    member = cast(BinaryIO, stack.enter_context(archive.open(f"{key}.npy")))
    np.lib.format.read_magic(member)
    shape, _, dtype = np.lib.format.read_array_header_1_0(member)
    row_bytes = dtype.itemsize * math.prod(shape[1:])
    rows = _block_rows(dtype, shape)
    for begin in range(0, shape[0], rows):
        count = min(rows, shape[0] - begin)
        data = member.read(count * row_bytes)
        yield from np.frombuffer(data, dtype).reshape(count, *shape[1:])
