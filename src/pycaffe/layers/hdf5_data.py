"""HDF5Data: arrays from HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe import parallel
from pycaffe.blob import FloatArray, Shape
from pycaffe.data.hdf5 import read_file_list, read_hdf5
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.data.shuffle import Order
from pycaffe.errors import DataError
from pycaffe.layers._base import TRAIN
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer

__all__ = ["HDF5DataLayer"]


@register_layer("HDF5Data")
class HDF5DataLayer(PrefetchingLayer):
    """Reads the rows of HDF5 files, over and over. Each top is read from the dataset of its name.

    Of several solvers that train together each reads the rows of its rank: every `solver_count`-th.

    tops: (N, ...) with N = `batch_size` and the other axes of the dataset, which may hold floats or integers.

    hdf5_data_param: `source` (a text file that names HDF5 files), `batch_size`, `shuffle` (false; else the files are
    taken in random order, and the rows of each in random order, anew each time through). There is no transform.
    data_param: `prefetch` (4: so many batches are read ahead).

    Raises:
        LayerError: a transform_param is given, or batch_size is not positive.
        DataError: the list or a file is missing or damaged, or its datasets do not fit each other or the first file's.

    As hdf5_data_layer.cpp. A file is in memory as long as batches are made of it; the next one is read ahead.
    """

    min_top_blobs = 1

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        if self.layer_param.HasField("transform_param"):
            raise self.error(f"{self.type} does not transform data. Remove transform_param.")
        param = self.layer_param.hdf5_data_param
        self.check_batch_size(param.batch_size)
        source = _RowBatches(param, list(self.layer_param.top), self.phase)
        return source, [(param.batch_size, *shape) for shape in source.row_shapes]


class _Rows(NamedTuple):
    """Rows of one file."""

    path: str
    arrays: list[FloatArray]
    rows: npt.NDArray[np.intp]


class _RowBatches(BatchSource):
    """Batches of the rows of several files."""

    def __init__(self, param: Any, tops: Sequence[str], phase: int) -> None:
        self.batch_size: int = param.batch_size
        self.tops = tops
        self.phase = phase
        self.files = read_file_list(param.source)
        self._shuffle: bool = param.shuffle
        self._file_order = Order(len(self.files), self._shuffle)
        self._file = self._row = self._offset = 0
        self._open_file()
        self._row_order = Order(len(self._arrays[0]), self._shuffle)
        self.row_shapes = [array.shape[1:] for array in self._arrays]

    def _open_file(self) -> None:
        self._path = self.files[self._file_order[self._file]]
        self._arrays = read_hdf5(self._path, self.tops)

    def plan(self) -> list[_Rows]:
        chunks: list[_Rows] = []
        missing = self.batch_size
        while missing:
            if self._row == len(self._row_order):
                self._begin_next_file()
            rows = self._next_rows(missing)
            chunks.append(_Rows(self._path, self._arrays, rows))
            missing -= len(rows)
        return chunks

    def _next_rows(self, limit: int) -> npt.NDArray[np.intp]:
        """Up to `limit` of the file's rows, those of this solver's rank."""
        count = parallel.solver_count() if self.phase == TRAIN else 1  # the first rank tests alone
        skip = (parallel.solver_rank() - self._offset) % count
        positions = range(self._row + skip, len(self._row_order), count)[:limit]
        end = positions[-1] + 1 if len(positions) == limit else len(self._row_order)
        self._offset += end - self._row
        self._row = end
        return self._row_order.take(positions)

    def _begin_next_file(self) -> None:
        if len(self.files) == 1:  # stays in memory
            self._row = 0
            self._row_order.renew()
            return
        self._file += 1  # before anything can fail, so that a bad file costs one pass
        if self._file == len(self.files):
            self._file = 0
            self._file_order.renew()
        self._open_file()
        self._row = 0
        self._row_order.renew(len(self._arrays[0]))

    def make(self, plan: list[_Rows]) -> Batch:
        for path, arrays, _ in plan:
            for name, array, shape in zip(self.tops, arrays, self.row_shapes):
                if array.shape[1:] != shape:
                    raise DataError(
                        f"Dataset {name!r} of {path!r} has rows of another shape than the first file's: expected "
                        f"{shape!r}, got {array.shape[1:]!r}."
                    )
        return [np.concatenate([chunk.arrays[top][chunk.rows] for chunk in plan]) for top in range(len(self.tops))]

    def state(self) -> dict[str, Any]:
        return {
            "file": self._file,
            "row": self._row,
            "offset": self._offset,
            "file_order": self._file_order.state(),
            "row_order": self._row_order.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._file_order.restore(state["file_order"])
        self._file = int(state["file"])
        self._open_file()
        self._row_order = Order(len(self._arrays[0]), self._shuffle)
        self._row_order.restore(state["row_order"])
        self._row, self._offset = int(state["row"]), int(state["offset"])
