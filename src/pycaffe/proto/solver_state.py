"""Solver states (.solverstate, .solverstate.h5): the iteration, the weights' file and the solver's history.

    SolverState        1 iter      2 learned_net      3 history (BlobProto)      4 current_step
                       5 minimum_loss      6 iter_last_event (SSD's; other Caffes skip them)
    HDF5               iter, current_step: int32 of shape (1,)      learned_net: text      history/I: arrays

As a .caffemodel, a binary state is scanned and not parsed, and written piece by piece.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import CaffeError, SolverError
from pycaffe.proto.blob_file import blob_bytes, diagnose, load_span, new_hdf5, open_buffer, read_head, varint
from pycaffe.proto.caffemodel import HDF5_MAGIC, WeightBlob
from pycaffe.proto.wire import BYTES, FIXED32, VARINT, BlobSpan, WireError, fields, scan_blob

__all__ = ["SavedState", "is_hdf5_name", "read_solver_state", "write_solver_state"]

Array = npt.NDArray[np.float32]


@dataclass
class SavedState:
    """A solver state.

    Attributes:
        iteration: how many updates the weights have had.
        learned_net: the path of the weights as the solver wrote it; empty where the file names none.
        current_step: how often the policies multistep and plateau have lowered the learning rate.
        history: the solver's arrays.
        minimum_loss, iter_last_event: of the policy plateau; None where the file has none.
    """

    iteration: int
    learned_net: str
    current_step: int = 0
    history: Sequence[WeightBlob] = field(default_factory=list)
    minimum_loss: float | None = None
    iter_last_event: int | None = None


def is_hdf5_name(path: str | os.PathLike[str]) -> bool:
    """Whether a state of that name is HDF5 (solver.cpp, Restore: by the suffix alone)."""
    return os.fspath(path).endswith(".h5")


def read_solver_state(path: str | os.PathLike[str]) -> SavedState:
    """Reads a solver state in either format.

    Raises:
        SolverError: the file is missing, truncated, damaged or no solver state.
    """
    name = os.fspath(path)
    head = read_head(name, SolverError)
    if head.startswith(HDF5_MAGIC) or is_hdf5_name(name):
        return _read_hdf5(name, head)
    buffer = open_buffer(name, False, SolverError)
    try:
        return _scan(name, buffer)
    except WireError as error:
        reason = diagnose(head) or f"the file is truncated, damaged or no solver state: {error}."
        raise SolverError(f"Failed to parse SolverState file: {name}: {reason}") from None


def _scan(name: str, buffer: Any) -> SavedState:
    state = SavedState(-1, "")
    history: list[WeightBlob] = []
    for item in fields(buffer, 0, len(buffer)):
        if item.number == 1 and item.wire == VARINT:
            state.iteration = item.start
        elif item.number == 2 and item.wire == BYTES:
            state.learned_net = os.fsdecode(bytes(buffer[item.start : item.stop]))
        elif item.number == 3 and item.wire == BYTES:
            history.append(_history_blob(name, len(history), scan_blob(buffer, item.start, item.stop), buffer))
        elif item.number == 4 and item.wire == VARINT:
            state.current_step = item.start
        elif item.number == 5 and item.wire == FIXED32:
            (state.minimum_loss,) = struct.unpack("<f", buffer[item.start : item.start + 4])
        elif item.number == 6 and item.wire == VARINT:
            state.iter_last_event = item.start
    if state.iteration < 0:
        raise WireError("it does not say its iteration")
    state.history = history
    return state


def _history_blob(name: str, index: int, span: BlobSpan, buffer: Any) -> WeightBlob:
    def load() -> Array:
        try:
            return load_span(span, buffer)
        except WireError as error:
            raise SolverError(f"Cannot read history blob {index} in {name}: {error}.") from None

    return WeightBlob(span.shape, load, span.legacy)


def write_solver_state(path: str, state: SavedState, history: Sequence[npt.ArrayLike], *, hdf5: bool) -> None:
    """Writes `state` with these arrays as its history (its own is not looked at), as the original writes it.

    `path` is a new file. Raises OSError.
    """
    if hdf5:
        _write_hdf5(path, state, history)
        return
    net = os.fsencode(state.learned_net)
    with open(path, "xb") as file:
        file.write(b"\x08" + varint(state.iteration) + b"\x12" + varint(len(net)) + net)
        for values in history:
            chunks = blob_bytes(values)
            file.write(b"\x1a" + varint(sum(len(chunk) for chunk in chunks)))
            file.writelines(chunks)
        file.write(b"\x20" + varint(state.current_step))
        if state.minimum_loss is not None:
            file.write(b"\x2d" + struct.pack("<f", state.minimum_loss))
        if state.iter_last_event is not None:
            file.write(b"\x30" + varint(state.iter_last_event))


# ---------- HDF5


def _read_hdf5(name: str, head: bytes) -> SavedState:
    import h5py

    try:
        with h5py.File(name, "r") as file:
            if "iter" not in file or "history" not in file:
                raise SolverError(f"Error reading solver state from {name}: it has no 'iter' or no 'history'.")
            group = file["history"]
            arrays = [np.asarray(group[str(i)][()], np.float32) for i in range(len(group))]
            return SavedState(
                iteration=_number(file["iter"]),
                learned_net=_text(file["learned_net"]) if "learned_net" in file else "",
                current_step=_number(file["current_step"]) if "current_step" in file else 0,
                history=[WeightBlob(array.shape, lambda array=array: array) for array in arrays],  # type: ignore[misc]
                minimum_loss=float(np.ravel(file["minimum_loss"][()])[0]) if "minimum_loss" in file else None,
                iter_last_event=_number(file["iter_last_event"]) if "iter_last_event" in file else None,
            )
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, CaffeError):
            raise
        reason = diagnose(head) or f"the file is truncated, damaged or no solver state ({error})."
        raise SolverError(f"Couldn't open solver state file {name}: {reason}") from None


def _number(dataset: Any) -> int:
    return int(np.ravel(dataset[()])[0])


def _text(dataset: Any) -> str:
    value = dataset[()]
    return os.fsdecode(value) if isinstance(value, (bytes, np.bytes_)) else str(value)


def _write_hdf5(path: str, state: SavedState, history: Sequence[npt.ArrayLike]) -> None:
    import h5py

    with new_hdf5(path) as file:
        file.create_dataset("iter", data=np.array([state.iteration], np.int32))
        text = os.fsencode(state.learned_net) + b"\0"  # with its end, which the original reads up to
        kind = h5py.h5t.C_S1.copy()
        kind.set_size(len(text))
        plain = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plain.set_obj_track_times(False)  # as `create_dataset` has it
        dataset = h5py.h5d.create(file.id, b"learned_net", kind, h5py.h5s.create(h5py.h5s.SCALAR), plain)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(text, f"S{len(text)}"), kind)
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        if state.minimum_loss is not None:
            file.create_dataset("minimum_loss", data=np.array([state.minimum_loss], np.float32))
        if state.iter_last_event is not None:
            file.create_dataset("iter_last_event", data=np.array([state.iter_last_event], np.int32))
        group = file.create_group("history")
        for index, values in enumerate(history):
            group.create_dataset(str(index), data=np.asarray(values, np.float32))
