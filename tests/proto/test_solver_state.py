"""Solver states byte by byte; what solvers do with them is in tests/solvers."""

from __future__ import annotations

import pathlib
import time

import numpy as np
import pytest

from pycaffe.errors import SolverError
from pycaffe.proto.schema import BlobShape, SolverState
from pycaffe.proto.solver_state import SavedState, read_solver_state, write_solver_state

HISTORY = [np.arange(6, dtype=np.float32).reshape(2, 3), np.float32(7) * np.ones((1,), np.float32)]


def test_the_bytes_are_those_of_protobuf(tmp_path: pathlib.Path) -> None:
    state = SavedState(300, "näme.caffemodel", 2, minimum_loss=0.25, iter_last_event=200)
    write_solver_state(str(tmp_path / "a"), state, HISTORY, hdf5=False)
    want = SolverState(iter=300, learned_net="näme.caffemodel", current_step=2, minimum_loss=0.25, iter_last_event=200)
    for array in HISTORY:
        want.history.add(shape=BlobShape(dim=array.shape), data=array.reshape(-1))
    assert (tmp_path / "a").read_bytes() == want.SerializeToString()


@pytest.mark.parametrize("hdf5", [False, True])
@pytest.mark.parametrize("plateau", [False, True])
def test_what_is_written_is_read(tmp_path: pathlib.Path, hdf5: bool, plateau: bool) -> None:
    path = tmp_path / ("a.h5" if hdf5 else "a")
    more = {"minimum_loss": 0.25, "iter_last_event": 3} if plateau else {}
    state = SavedState(5, "w.caffemodel", 1, **more)  # type: ignore[arg-type]
    write_solver_state(str(path), state, HISTORY, hdf5=hdf5)
    got = read_solver_state(path)
    assert (got.iteration, got.learned_net, got.current_step) == (5, "w.caffemodel", 1)
    assert (got.minimum_loss, got.iter_last_event) == ((0.25, 3) if plateau else (None, None))
    assert [blob.shape for blob in got.history] == [(2, 3), (1,)]
    for blob, array in zip(got.history, HISTORY):
        np.testing.assert_array_equal(blob.data(), array)


def test_hdf5_files_do_not_tell_when_they_were_written(tmp_path: pathlib.Path) -> None:
    """Else a run that is resumed would not end with the bytes of one that was not."""
    first, second = tmp_path / "a", tmp_path / "b"
    state = SavedState(3, "a.caffemodel", minimum_loss=0.5, iter_last_event=1)
    write_solver_state(str(first), state, HISTORY, hdf5=True)
    written = int(time.time())
    while int(time.time()) == written:  # HDF5 counts seconds
        time.sleep(0.01)
    write_solver_state(str(second), state, HISTORY, hdf5=True)
    assert first.read_bytes() == second.read_bytes()


def test_a_file_is_never_overwritten(tmp_path: pathlib.Path) -> None:
    for hdf5 in (False, True):
        (tmp_path / "a").write_bytes(b"x")
        with pytest.raises(FileExistsError):
            write_solver_state(str(tmp_path / "a"), SavedState(5, "w"), HISTORY, hdf5=hdf5)


def test_doubles_and_single_floats_are_read(tmp_path: pathlib.Path) -> None:
    state = SolverState(iter=1)
    state.history.add(shape=BlobShape(dim=[2]), double_data=[1.5, 2.5])
    (tmp_path / "a").write_bytes(state.SerializeToString())
    got = read_solver_state(tmp_path / "a")
    np.testing.assert_array_equal(got.history[0].data(), np.array([1.5, 2.5], np.float32))
    assert got.learned_net == ""


def test_a_history_that_lies_about_its_size(tmp_path: pathlib.Path) -> None:
    state = SolverState(iter=1)
    state.history.add(shape=BlobShape(dim=[2, 10**9]), data=[1, 2])
    (tmp_path / "a").write_bytes(state.SerializeToString())
    blob = read_solver_state(tmp_path / "a").history[0]
    with pytest.raises(SolverError, match=r"history blob 0 in .*: its shape .* stands for 2000000000 values"):
        blob.data()


def test_hdf5_files_of_other_kinds(tmp_path: pathlib.Path) -> None:
    import h5py

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros(3)
    with pytest.raises(SolverError, match="it has no 'iter' or no 'history'"):
        read_solver_state(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["iter"] = np.array([3])
        file["history/1"] = np.zeros(3)
    with pytest.raises(SolverError, match=r"Couldn't open solver state file .*b\.h5"):
        read_solver_state(tmp_path / "b.h5")
    (tmp_path / "c.h5").write_text("text")
    with pytest.raises(SolverError, match="it is text, not a binary file"):
        read_solver_state(tmp_path / "c.h5")
