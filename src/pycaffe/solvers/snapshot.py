"""Snapshots: weights and solver state as the original writes and reads them, each file as a whole or not at all.

    snapshot:  PREFIX_iter_N.caffemodel  →  PREFIX_iter_N.solverstate.resume.json  →  PREFIX_iter_N.solverstate
    restore:   .solverstate  →  the weights it names, or of that name beside it  →  .resume.json where it belongs to it

The solver state comes last: where it is, the rest is. A run that is killed at any moment leaves its earlier snapshots,
and at most one hidden temporary file, which the next run with that prefix removes.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Sequence

from pycaffe.blob import FloatArray, Shape
from pycaffe.errors import SolverError, WeightsError
from pycaffe.net import Net
from pycaffe.net.weights import save_hdf5, save_weights
from pycaffe.proto.caffemodel import WeightBlob
from pycaffe.proto.replace_file import replacing
from pycaffe.proto.solver_state import SavedState, write_solver_state
from pycaffe.solvers.progress import log_progress
from pycaffe.solvers.run_state import write_run_state

__all__ = ["check_prefix", "history_of", "snapshot_path", "weights_of", "write_snapshot"]

HDF5 = 0  # SolverParameter.SnapshotFormat
STALE_SECONDS = 3600.0  # a temporary file of that age is no running process's


def snapshot_path(prefix: str, iteration: int, extension: str) -> str:
    """The name of a snapshot's file."""
    return f"{prefix}_iter_{iteration}{extension}"


def check_prefix(prefix: str) -> None:
    """Fails now where a snapshot would fail after hours, and removes what a killed run left.

    Raises:
        SolverError: the folder does not exist or cannot be written to.
    """
    probe = snapshot_path(prefix, 0, ".tempfile")
    try:
        with open(probe, "w"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise SolverError(
            f"Cannot write to snapshot prefix '{prefix}'.  Make sure that the directory exists and is writable. "
            f"({error})"
        ) from None
    folder, name = os.path.split(prefix)
    pattern = os.path.join(glob.escape(folder), f".{glob.escape(name)}_iter_*.tmp")
    for path in glob.glob(pattern):
        if time.time() - os.path.getmtime(path) > STALE_SECONDS:
            os.unlink(path)


def write_snapshot(
    net: Net,
    prefix: str,
    state: SavedState,
    history: Sequence[FloatArray],
    run_state: dict[str, object],
    *,
    snapshot_format: int,
    diffs: bool,
) -> str:
    """Writes the three files of a snapshot; returns the name of the solver state.

    Raises:
        SolverError: a file cannot be written, as when the disk is full. Earlier snapshots stay as they are.
    """
    suffix = ".h5" if snapshot_format == HDF5 else ""
    kind = "HDF5" if snapshot_format == HDF5 else "binary proto"
    weights = snapshot_path(prefix, state.iteration, f".caffemodel{suffix}")
    path = snapshot_path(prefix, state.iteration, f".solverstate{suffix}")
    state.learned_net = weights
    try:
        log_progress("solver.cpp:464", "Snapshotting to %s file %s", kind, weights)
        (save_hdf5 if snapshot_format == HDF5 else save_weights)(net._graph, weights, diffs=diffs)
        log_progress("sgd_solver.cpp:284", "Snapshotting solver state to %s file %s", kind, path)
        with replacing(path) as temporary:
            write_solver_state(temporary, state, history, hdf5=snapshot_format == HDF5)
            write_run_state(path, temporary, run_state)
    except (OSError, WeightsError) as error:
        reason = str(error).rstrip(".")
        raise SolverError(
            f"Couldn't write the snapshot of iteration {state.iteration}: {reason}. "
            "Earlier snapshots are as they were, and the solver may go on: make room and call snapshot()."
        ) from error
    return path


def weights_of(state: SavedState, path: str) -> str | None:
    """The weights that a solver state names; None where it names none.

    A state that was moved together with its weights names a file that is not there any more: then the one of that name
    beside the state is taken.

    Raises:
        SolverError: neither is there.
    """
    name = state.learned_net
    if not name:
        return None
    beside = os.path.join(os.path.dirname(path), os.path.basename(name.replace("\\", "/")))
    for candidate in (name, beside):
        if os.path.isfile(candidate):
            return candidate
    raise SolverError(
        f"Could not open file {name} (File not found), the weights of solver state {path!r}. Nor is there {beside!r}. "
        "Put the .caffemodel beside the .solverstate."
    )


def history_of(state: SavedState, shapes: Sequence[Shape], path: str) -> list[FloatArray]:
    """The history of a state as flat arrays, once it is sure that it fits parameters of these shapes.

    Raises:
        SolverError: it belongs to another net or solver type, or is damaged.
    """
    if len(state.history) != len(shapes):
        raise SolverError(
            f"Incorrect length of history blobs. Solver state {path!r} has {len(state.history)}, this solver "
            f"{len(shapes)}: it is of another net or solver type."
        )
    for index, (blob, shape) in enumerate(zip(state.history, shapes)):
        if not _fits(blob, shape):
            raise SolverError(
                f"History blob {index} of solver state {path!r} has shape {blob.shape!r}, expected {shape!r}: it is of "
                "another net."
            )
    return [blob.data().reshape(-1) for blob in state.history]


def _fits(blob: WeightBlob, shape: Shape) -> bool:
    """The same but for axes of 1 in front: old files give every blob four axes."""
    return blob.fits(shape) or _without_leading_ones(blob.shape) == _without_leading_ones(shape)


def _without_leading_ones(shape: Shape) -> Shape:
    count = 0
    while count < len(shape) and shape[count] == 1:
        count += 1
    return shape[count:]
