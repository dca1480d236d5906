"""A small net that learns from a database, with a solver for W times its batch."""

from __future__ import annotations

import pathlib
from typing import Any

import h5py
import numpy as np

from pycaffe.solvers import get_solver
from tests.net.nets import ip, layer

RECORDS = 96
DEFAULTS = {
    "base_lr": "0.05", "lr_policy": '"step"', "gamma": "0.5", "stepsize": "7", "random_seed": "3", "display": "0",
    "weight_decay": "0.01", "snapshot_after_train": "false",
}  # fmt: skip
TYPES = {
    "SGD": "momentum: 0.9",
    "Nesterov": 'type: "Nesterov" momentum: 0.9',
    "AdaGrad": 'type: "AdaGrad"',
    "RMSProp": 'type: "RMSProp" rms_decay: 0.9',
    "AdaDelta": 'type: "AdaDelta" momentum: 0.9 delta: 1e-4 base_lr: 1',
    "Adam": 'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.01',
}


def write_data(folder: pathlib.Path) -> None:
    """Writes the data: three classes, told apart by the mean of some of twelve numbers."""
    generator = np.random.default_rng(4)
    labels = generator.integers(0, 3, RECORDS)
    values = generator.standard_normal((RECORDS, 2, 3, 2)).astype(np.float32)
    values[np.arange(RECORDS), 0, labels] += 2
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"], file["label"] = values, labels.astype(np.float32)
    (folder / "list.txt").write_text(f"{folder / 'data.h5'}\n")


def write_solver(
    folder: pathlib.Path, batch: int, more: str = TYPES["SGD"], *, steps: int = 20, body: str = "", prefix: str = "run"
) -> str:
    """Writes a solver whose net reads `batch` rows; `body` makes `middle` of `conv`, or works on that in place."""
    if not (folder / "list.txt").exists():
        write_data(folder)
    middle = "middle" if '"middle"' in body else "conv"
    source = f'hdf5_data_param {{ source: "{folder / "list.txt"}" batch_size: {batch} }}'
    net = (
        layer("data", "HDF5Data", "", "data label", source)
        + layer("conv", "Convolution", "data", rest='param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } '
                'convolution_param { num_output: 4 kernel_size: 2 weight_filler { type: "gaussian" std: 0.3 } }')
        + body + layer("tanh", "TanH", middle, middle) + ip("fc", middle, 3)
        + layer("accuracy", "Accuracy", "fc label", rest="include { phase: TEST }")
        + layer("loss", "SoftmaxWithLoss", "fc label")
    )  # fmt: skip
    path = folder / f"{prefix}_net{batch}.prototxt"
    path.write_text(net)
    defaults = " ".join(f"{name}: {value}" for name, value in DEFAULTS.items() if f"{name}:" not in more)
    solver = folder / f"{prefix}{batch}.prototxt"
    solver.write_text(f'net: "{path}" max_iter: {steps} snapshot_prefix: "{folder / prefix}" {defaults} {more}')
    return str(solver)


def alone(solver: str, snapshot: str | None = None) -> dict[str, list[np.ndarray]]:
    """The parameters that one process learns."""
    one = get_solver(solver)
    one.solve(snapshot)
    return {name: [np.array(blob.data) for blob in blobs] for name, blobs in one.net.params.items()}


def assert_same(got: dict[str, Any], want: dict[str, Any], tolerance: float = 1e-5) -> None:
    """Every parameter is within `tolerance` of the largest of its blob."""
    assert list(got) == list(want)
    for name in want:
        for index, (one, other) in enumerate(zip(got[name], want[name])):
            error = np.abs(one - other).max() / np.abs(other).max()
            assert error <= tolerance, (name, index, error)
