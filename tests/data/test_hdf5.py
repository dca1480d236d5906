from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe.data.hdf5 import read_file_list, read_hdf5
from pycaffe.errors import DataError


def write(tmp_path: Path, **datasets: object) -> str:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            file.create_dataset(name, data=value)
    return str(path)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "u1", "i8"])
def test_floats_and_integers_become_float32(tmp_path: Path, dtype: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    (got,) = read_hdf5(write(tmp_path, data=values), ["data"])
    assert got.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(got, values)


def test_file_lists_are_separated_by_white_space(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.h5 b.h5\n\n  c.h5\n")
    assert read_file_list(str(path)) == ["a.h5", "b.h5", "c.h5"]
    path.write_text(" \n")
    with pytest.raises(DataError, match="Must have at least 1 HDF5 filename listed in "):
        read_file_list(str(path))
    with pytest.raises(DataError, match=r"Failed to open source file: .*nowhere"):
        read_file_list(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"other": [1.0]}, r"Failed to find HDF5 dataset data. .* has \['other'\]"),
        ({"data": ["text"]}, "Unsupported datatype class: H5T_STRING"),
        ({"data": [True]}, "Unsupported datatype class: H5T_ENUM"),
        ({"data": 3.0}, "is a scalar"),
        ({"data": np.zeros((0, 3))}, "has no rows"),
        ({"data": [1.0, 2.0], "label": [1.0]}, r"shape\(0\) == num \(1 vs. 2\).*'data' and 'label'"),
    ],
    ids=["missing", "text", "bool", "scalar", "empty", "rows"],
)
def test_bad_datasets(tmp_path: Path, datasets: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_hdf5(write(tmp_path, **datasets), ["data", "label"] if "label" in datasets else ["data"])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Failed opening HDF5 file: .*nowhere"):
        read_hdf5(str(tmp_path / "nowhere"), ["data"])
    whole = Path(write(tmp_path, data=np.arange(1000.0)))
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"Failed opening HDF5 file: .*truncated"):
        read_hdf5(str(whole), ["data"])
