"""HDF5Data: arrays from HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.blob import Blob
from pycaffe.data.hdf5 import read_file_list, read_hdf5
from pycaffe.errors import DataError
from pycaffe.layers._reader import ReaderLayer
from pycaffe.layers._registry import register_layer
from pycaffe.rng import child_generator

__all__ = ["HDF5DataLayer"]


@register_layer("HDF5Data")
class HDF5DataLayer(ReaderLayer):
    """Reads the rows of HDF5 files, over and over. Each top is read from the dataset of its name.

    tops: (N, ...) with N = `batch_size` and the other axes of the dataset, which may hold floats or integers.

    hdf5_data_param: `source` (a text file that names HDF5 files), `batch_size`, `shuffle` (false; else the files are
    taken in random order, and the rows of each in random order, anew each time through). There is no transform.

    Raises:
        LayerError: a transform_param is given, or batch_size is not positive.
        DataError: the list or a file is missing or damaged, or its datasets do not fit each other or the first file's.

    As hdf5_data_layer.cpp; one file at a time is in memory.
    """

    min_top_blobs = 1

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.num_top = len(top)
        if self.layer_param.HasField("transform_param"):
            raise self.error(f"{self.type} does not transform data. Remove transform_param.")
        param = self.layer_param.hdf5_data_param
        self.batch_size = self.check_batch_size(param.batch_size)
        self._generator = child_generator()
        self.files = read_file_list(param.source)
        self._file_order = self._order(len(self.files))
        self._file = 0
        self._load()
        for blob, array in zip(top, self._arrays):
            blob.reshape(self.batch_size, *array.shape[1:])

    def _order(self, count: int) -> list[int]:
        shuffle = self.layer_param.hdf5_data_param.shuffle
        return [int(i) for i in self._generator.permutation(count)] if shuffle else list(range(count))

    def _load(self) -> None:
        self._path = self.files[self._file_order[self._file]]
        self._arrays = read_hdf5(self._path, self.layer_param.top)
        self._row = 0
        self._row_order = self._order(len(self._arrays[0]))

    def _next_row(self) -> None:
        self._row += 1
        if self._row < len(self._row_order):
            return
        if len(self.files) == 1:  # stays in memory
            self._row = 0
            self._row_order = self._order(len(self._row_order))
            return
        self._file += 1
        if self._file == len(self.files):
            self._file = 0
            self._file_order = self._order(len(self.files))
        self._load()

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        targets = [blob.raw_data() for blob in top]
        for item in range(self.batch_size):
            row = self._row_order[self._row]
            for name, target, array in zip(self.layer_param.top, targets, self._arrays):
                if target.shape[1:] != array.shape[1:]:
                    raise DataError(
                        f"Dataset {name!r} of {self._path!r} has rows of another shape than the first file's: expected "
                        f"{target.shape[1:]!r}, got {array.shape[1:]!r}."
                    )
                target[item] = array[row]
            self._next_row()
