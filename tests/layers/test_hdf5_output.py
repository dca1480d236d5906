from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe.errors import DataError, ShapeError
from tests.layers.case import build

LAYER = 'layer { name: "l" type: "HDF5Output" bottom: "b0" bottom: "b1" hdf5_output_param { file_name: "out.h5" } }'


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("shape", "label_shape", "want_shape", "want_label_shape"),
    [
        ((2, 3, 4, 5), (2,), (2, 3, 4, 5), (2, 1, 1, 1)),
        ((3, 2), (3, 1, 5), (3, 2, 1, 1), (3, 1, 5, 1)),
    ],
)
def test_the_file_holds_what_the_bottoms_held(
    shape, label_shape, want_shape, want_label_shape, folder: Path, tmp_path_factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    labels = np.random.default_rng(1).standard_normal(label_shape, np.float32)
    net = build(LAYER, shape, label_shape)
    net.blobs["b0"].data[...], net.blobs["b1"].data[...] = values, labels
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    net.forward()
    with h5py.File(folder / "out.h5") as file:  # complete while the net is alive
        assert set(file) == {"data", "label"}
        for name, want, want_shape_ in (("data", values, want_shape), ("label", labels, want_label_shape)):
            assert file[name].shape == want_shape_
            assert file[name].dtype == np.float32
            for index in np.ndindex(want.shape):
                assert file[name][...].ravel()[np.ravel_multi_index(index, want.shape)] == want[index]


def test_set_up_empties_the_file_and_a_second_pass_fails() -> None:
    with h5py.File("out.h5", "w") as file:
        file["old"] = 1
    net = build(LAYER, (2, 3), (2,))
    with h5py.File("out.h5") as file:
        assert list(file) == []
    net.forward()
    with pytest.raises(DataError, match=r"Failed to make float dataset data: 'out.h5' has one already"):
        net.forward()


def test_bad_bottoms_and_files() -> None:
    with pytest.raises(ShapeError, match=r"bottom\[0\]->num\(\) == bottom\[1\]->num\(\) \(2 vs. 3\)"):
        build(LAYER, (2, 3), (3,)).forward()
    with pytest.raises(ShapeError, match="Cannot use legacy accessors on Blobs with > 4 axes"):
        build(LAYER, (2, 3, 1, 1, 4), (2,)).forward()
    with pytest.raises(DataError, match=r"Failed to open HDF5 filenowhere/out.h5.*working directory"):
        build(LAYER.replace("out.h5", "nowhere/out.h5"), (2, 3), (2,))
