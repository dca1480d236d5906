"""HDF5 files as sources of batches (util/hdf5.cpp): datasets of floats or integers, read as float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.data.database import working_directory
from pycaffe.data.image_list import read_lines
from pycaffe.errors import DataError

__all__ = ["read_file_list", "read_hdf5"]

CLASSES = {
    2: "H5T_TIME", 3: "H5T_STRING", 4: "H5T_BITFIELD", 5: "H5T_OPAQUE", 6: "H5T_COMPOUND", 7: "H5T_REFERENCE",
    8: "H5T_ENUM", 9: "H5T_VLEN", 10: "H5T_ARRAY",
}  # fmt: skip


def read_file_list(path: str) -> list[str]:
    """The file names in a list; they are separated by white space.

    Raises:
        DataError: the list is missing or empty.
    """
    names = [name for line in read_lines(path, "Failed to open source file") for name in line.split()]
    if not names:
        raise DataError(f"Must have at least 1 HDF5 filename listed in {path}")
    return names


def read_hdf5(path: str, names: Sequence[str]) -> list[FloatArray]:
    """The datasets of those names, whole.

    Raises:
        DataError: the file is missing or damaged, a dataset is missing, has no axis, no row or values that are no
            numbers, or the datasets differ in their first extent.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            arrays = [_read_dataset(h5py, file, name, path) for name in names]
    except (OSError, RuntimeError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"Failed opening HDF5 file: {path}. {error}.{working_directory(path)}") from error
    rows = len(arrays[0])
    for name, array in zip(names, arrays):
        if len(array) != rows:
            raise DataError(
                f"Check failed: hdf_blobs_[i]->shape(0) == num ({len(array)} vs. {rows}). In {path!r} the datasets "
                f"{names[0]!r} and {name!r} have different numbers of rows."
            )
    if rows == 0:
        raise DataError(f"The HDF5 file {path!r} has no rows.")
    return arrays


def _read_dataset(h5py: Any, file: Any, name: str, path: str) -> FloatArray:
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"Failed to find HDF5 dataset {name}. {path!r} has {sorted(file)!r}; each top names one.")
    kind = dataset.id.get_type().get_class()
    if kind not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        raise DataError(
            f"Unsupported datatype class: {CLASSES.get(kind, kind)}. Dataset {name!r} of {path!r} must hold numbers."
        )
    if dataset.ndim < 1:
        raise DataError(f"Check failed: ndims >= min_dim (0 vs. 1). Dataset {name!r} of {path!r} is a scalar.")
    array: FloatArray = np.ascontiguousarray(dataset[...], np.float32)
    return array
