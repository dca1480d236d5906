"""Small solvers from text, for the tests of solvers."""

from __future__ import annotations

import pathlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pycaffe.solvers import Solver, get_solver
from tests.net.nets import layer

NET = (
    'name: "small"\n'
    'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 5 dim: 3 dim: 4 dim: 2 } } }\n'
    'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 5 } } }\n'
    + layer(
        "conv",
        "Convolution",
        "x",
        rest="param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 } convolution_param { num_output: 4 kernel_size: 2 "
        'weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "constant" value: 0.1 } }',
    )
    + layer("relu", "ReLU", "conv", "conv")
    + layer(
        "ip",
        "InnerProduct",
        "conv",
        rest='inner_product_param { num_output: 6 weight_filler { type: "gaussian" std: 0.3 } }',
    )
    + layer("loss", "SoftmaxWithLoss", "ip t", "loss")
)


def write_solver(folder: pathlib.Path, text: str, net: str = NET) -> str:
    """Writes net.prototxt and solver.prototxt into `folder`; returns the solver's path."""
    (folder / "net.prototxt").write_text(net)
    given = "" if "net" in text.split(":")[0] else f"net: '{folder / 'net.prototxt'}'\n"
    (folder / "solver.prototxt").write_text(given + text)
    return str(folder / "solver.prototxt")


def solver_of(folder: pathlib.Path, text: str, net: str = NET) -> Solver:
    """A solver of the net above, whose inputs are set."""
    solver = get_solver(write_solver(folder, text, net))
    feed(solver.net)
    for test_net in solver.test_nets:
        feed(test_net)
    return solver


def feed(net: Any, seed: int = 7) -> None:
    """Sets the inputs x and t."""
    rng = np.random.default_rng(seed)
    if "x" in net.blobs:
        net.blobs["x"].data[...] = rng.standard_normal(net.blobs["x"].shape)
    if "t" in net.blobs:
        net.blobs["t"].data[...] = rng.integers(0, 6, net.blobs["t"].shape)


def parameters(solver: Solver) -> dict[str, np.ndarray]:
    """Copies of all parameters by layer and index."""
    return {
        f"{name}/{i}": blob.data.copy() for name, blobs in solver.net.params.items() for i, blob in enumerate(blobs)
    }


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size`: writing fails as on a full disk, with another number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
