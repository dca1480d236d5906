"""Runs of reference Caffe: eight steps of each solver and policy, and what followed its own snapshots."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest

import caffe

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
RUNS = sorted(path.stem for path in (GOLDEN / "solvers").glob("*.prototxt") if path.stem != "net")
SNAPSHOTS = sorted(path.stem for path in (GOLDEN / "data/snapshots").glob("*.prototxt") if path.stem != "net")


def assert_close(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=max(1e-4 * float(np.abs(want).max()), 1e-6))


def assert_steps(solver: caffe.SGDSolver, answers: dict[str, np.ndarray], steps: range) -> None:
    for step in steps:
        solver.step(1)
        assert_close(solver.net.blobs["loss"].data, answers[f"loss{step}"])
        for key, want in answers.items():
            if key.startswith(f"step{step}/"):
                _, layer, index = key.split("/")
                assert_close(solver.net.params[layer][int(index)].data, want)


def test_all_are_there() -> None:
    assert (len(RUNS), len(SNAPSHOTS)) == (18, 12)


@pytest.mark.parametrize("name", RUNS)
def test_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "solvers")
    answers = dict(np.load(f"{name}.npz"))
    solver = caffe.get_solver(f"{name}.prototxt")
    for key, value in answers.items():
        kind, *where = key.split("/")
        if kind == "in":
            solver.net.blobs[where[0]].data[...] = value
        elif kind == "start":
            solver.net.params[where[0]][int(where[1])].data[...] = value
    assert_steps(solver, answers, range(1, 9))


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_snapshot_of_the_original_resumes_and_is_written_again_as_it_was(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(GOLDEN / "data/snapshots", tmp_path / "snapshots")
    shutil.copy(GOLDEN / "data/a.h5", tmp_path)
    monkeypatch.chdir(tmp_path / "snapshots")
    solver = caffe.get_solver(f"{name}.prototxt")
    state = pathlib.Path(f"{name}_iter_5.solverstate" + (".h5" if "hdf5" in name else ""))
    written = state.read_bytes()
    solver.restore(str(state))
    assert solver.iter == 5
    solver.snapshot()
    assert (
        (state.read_bytes() == written) if "hdf5" not in name else same_hdf5(state, GOLDEN / "data/snapshots" / state)
    )
    solver.restore(str(state))
    assert_steps(solver, dict(np.load(f"{name}.npz")), range(6, 10))


def same_hdf5(one: pathlib.Path, other: pathlib.Path) -> bool:
    """Whether names, types, the text's padding and values are the same."""
    import h5py

    def content(path: pathlib.Path) -> dict[str, object]:
        found: dict[str, object] = {}
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.update({name: describe(item)}))
        return found

    def describe(item: object) -> object:
        if isinstance(item, h5py.Group):
            return "group"
        kind = item.id.get_type()  # type: ignore[attr-defined]
        text = (kind.get_strpad(), kind.get_cset()) if isinstance(kind, h5py.h5t.TypeStringID) else None
        return (item.shape, str(item.dtype), text, np.asarray(item[()]).tobytes())  # type: ignore[attr-defined, index]

    return content(one) == content(other)
