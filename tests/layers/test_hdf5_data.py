from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import DataError, LayerError
from tests.data.sources import enter_sources, run_golden_reader
from tests.layers.case import build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


def layer(param: str, tops: str = 'top: "data" top: "row"', more: str = "") -> str:
    return f'layer {{ name: "l" type: "HDF5Data" {tops} hdf5_data_param {{ {param} }} {more} }}'


def write(name: str, first: int, rows: int) -> None:
    numbers = np.arange(first, first + rows)
    with h5py.File(name, "w") as file:
        file["data"] = numbers[:, None, None, None] * 100.0 + np.arange(24).reshape(2, 3, 4)
        file["row"] = numbers


def test_golden() -> None:
    run_golden_reader("hdf5")


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("shuffle", [False, True])
def test_every_epoch_covers_each_row_once_and_a_file_at_a_time(files: int, shuffle: bool) -> None:
    rng.seed(1)
    for i in range(files):
        write(f"own{i}.h5", first=5 * i, rows=5)
    Path("own.txt").write_text("\n".join(f"own{i}.h5" for i in range(files)))
    net = build(layer(f'source: "own.txt" batch_size: 4 shuffle: {str(shuffle).lower()}'))
    assert net.blobs["data"].shape == (4, 2, 3, 4)
    rows: list[int] = []
    for _ in range(5 * files * 2):
        net.forward()
        numbers = net.blobs["row"].data
        rows += numbers.astype(int).tolist()
        want = numbers[:, None, None, None] * 100 + np.arange(24).reshape(2, 3, 4)
        np.testing.assert_array_equal(net.blobs["data"].data, want)
    epochs = [rows[i : i + 5 * files] for i in range(0, len(rows), 5 * files)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(5 * files))
        parts = [epoch[i : i + 5] for i in range(0, 5 * files, 5)]
        assert all(len({row // 5 for row in part}) == 1 for part in parts)
    assert (len({tuple(epoch) for epoch in epochs}) > 1) == shuffle
    orders = {tuple(row // 5 for row in epoch[::5]) for epoch in epochs}
    assert (len(orders) > 1) == (shuffle and files > 1)


def test_bad_parameters() -> None:
    with pytest.raises(LayerError, match=r"HDF5Data does not transform data.*layer 'l'"):
        build(layer('source: "h5.txt" batch_size: 2', more="transform_param { scale: 2 }"))
    with pytest.raises(LayerError, match="Positive batch size required"):
        build(layer('source: "h5.txt"'))
    with pytest.raises(DataError, match="Failed to find HDF5 dataset nothing"):
        build(layer('source: "h5.txt" batch_size: 2', tops='top: "nothing"'))


def test_files_of_different_shapes() -> None:
    write("own0.h5", 0, 2)
    with h5py.File("own1.h5", "w") as file:
        file["data"], file["row"] = np.zeros((2, 2, 3, 5)), np.zeros(2)
    Path("own.txt").write_text("own0.h5\nown1.h5\n")
    net = build(layer('source: "own.txt" batch_size: 3'))
    with pytest.raises(DataError, match=r"'data' of 'own1.h5' .*expected \(2, 3, 4\), got \(2, 3, 5\)"):
        net.forward()
