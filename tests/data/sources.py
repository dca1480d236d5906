"""The sources that reference Caffe's readers read, copied to a folder of their own, and its answers for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from pycaffe.layers._reader import ReaderLayer
from pycaffe.net import TEST, Net

GOLDEN = Path(__file__).parents[1] / "golden" / "data"


def enter_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a copy of the golden sources the working directory: paths in them are relative, and LMDB writes a lock."""
    folder = tmp_path / "sources"
    shutil.copytree(GOLDEN, folder)
    monkeypatch.chdir(folder)
    return folder


def run_golden_reader(name: str, steps: int = 5, rtol: float = 2e-5) -> None:
    """Compares the first batches of tests/golden/data/NAME.prototxt with reference Caffe's, in shape and value."""
    net = Net(f"{name}.prototxt", TEST)
    (layer,) = net.layers
    assert isinstance(layer, ReaderLayer)
    with np.load(f"{name}.npz") as answers:
        for step in range(steps):
            net.forward()
            tops = net.top_names[net._layer_names[0]]
            assert {f"{step}/{top}" for top in tops} == {key for key in answers if key.startswith(f"{step}/")}
            for top in tops:
                want, got = answers[f"{step}/{top}"], net.blobs[top].data
                assert got.shape == want.shape
                np.testing.assert_allclose(got, want, rtol=0, atol=rtol * max(1.0, float(np.abs(want).max())))
