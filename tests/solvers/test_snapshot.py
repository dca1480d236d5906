"""Snapshots: what they hold, who can read them, and what happens where they cannot be written or do not fit."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest

import caffe
from pycaffe.errors import SolverError, WeightsError
from pycaffe.proto.schema import BlobProto, NetParameter, SolverState
from tests.solvers.runs import NET, full_disk, parameters, solver_of, write_solver

SGD = 'type: "SGD" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 20\n'


def sgd(folder: pathlib.Path, more: str = "", net: str = NET) -> Any:
    return solver_of(folder, SGD + f'snapshot_prefix: "{folder}/s" {more}', net)


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(got) == list(want)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("suffix", ["", ".h5"])
@pytest.mark.parametrize("solver_type", ["SGD", "Adam", "AdaDelta"])
def test_a_restored_solver_goes_on_as_the_first(tmp_path: pathlib.Path, solver_type: str, suffix: str) -> None:
    text = f'type: "{solver_type}" base_lr: 0.05 lr_policy: "multistep" gamma: 0.1 stepvalue: 2 stepvalue: 5 '
    text += f'momentum: 0.9 random_seed: 4 snapshot_prefix: "{tmp_path}/s" '
    text += f"snapshot_format: {'HDF5' if suffix else 'BINARYPROTO'}"
    first = solver_of(tmp_path, text)
    first.step(4)
    first.snapshot()
    first.step(3)
    again = solver_of(tmp_path, text.replace("random_seed: 4", "random_seed: 5"))
    again.restore(f"{tmp_path}/s_iter_4.solverstate{suffix}")
    assert again.iter == 4
    again.step(3)
    assert_same(parameters(again), parameters(first))
    assert again.lr == first.lr == pytest.approx(0.0005)


def test_the_files_are_those_of_the_original(tmp_path: pathlib.Path) -> None:
    solver = sgd(tmp_path)
    solver.step(2)
    solver.snapshot()
    assert sorted(os.listdir(tmp_path)) == [
        "net.prototxt",
        "s_iter_2.caffemodel",
        "s_iter_2.solverstate",
        "s_iter_2.solverstate.resume.json",
        "solver.prototxt",
    ]
    state = SolverState.FromString((tmp_path / "s_iter_2.solverstate").read_bytes())
    assert (state.iter, state.learned_net, state.current_step) == (2, f"{tmp_path}/s_iter_2.caffemodel", 0)
    assert [list(blob.shape.dim) for blob in state.history] == [[4, 3, 2, 2], [4], [6, 12], [6]]
    assert not state.HasField("minimum_loss")
    net = NetParameter.FromString((tmp_path / "s_iter_2.caffemodel").read_bytes())
    values = {layer.name: layer.blobs for layer in net.layer}
    np.testing.assert_array_equal(values["ip"][1].data, solver.net.params["ip"][1].data)
    assert not values["ip"][1].diff


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_snapshot_diff_stores_what_the_last_update_subtracted(tmp_path: pathlib.Path, suffix: str) -> None:
    solver = sgd(tmp_path, f"snapshot_diff: true snapshot_format: {'HDF5' if suffix else 'BINARYPROTO'}")
    solver.step(1)
    solver.snapshot()
    want = solver.net.params["ip"][0].diff
    path = tmp_path / f"s_iter_1.caffemodel{suffix}"
    if suffix:
        import h5py

        with h5py.File(path) as file:
            got = file["diff/ip/0"][()]
    else:
        layers = {layer.name: layer for layer in NetParameter.FromString(path.read_bytes()).layer}
        got = np.asarray(layers["ip"].blobs[0].diff, np.float32).reshape(want.shape)
    assert np.abs(want).max() > 0
    np.testing.assert_array_equal(got, want)


def test_plateau_keeps_its_minimum(tmp_path: pathlib.Path) -> None:
    text = f'base_lr: 0.5 lr_policy: "plateau" gamma: 0.1 plateau_winsize: 30 snapshot_prefix: "{tmp_path}/s" '
    for suffix, name in (("", "BINARYPROTO"), (".h5", "HDF5")):
        solver = solver_of(tmp_path, f"{text} snapshot_format: {name}")
        solver.step(3)
        solver.snapshot()
        again = solver_of(tmp_path, text)
        again.restore(f"{tmp_path}/s_iter_3.solverstate{suffix}")
        kept = again._learning_rate
        assert kept.minimum_loss == pytest.approx(solver._learning_rate.minimum_loss, rel=1e-6) != 1e38
        assert kept.iter_last_event == solver._learning_rate.iter_last_event > 0


def test_weights_that_were_moved_with_their_state_are_found_beside_it(tmp_path: pathlib.Path) -> None:
    solver = sgd(tmp_path)
    solver.step(2)
    solver.snapshot()
    want = parameters(solver)
    (tmp_path / "moved").mkdir()
    for name in ("s_iter_2.caffemodel", "s_iter_2.solverstate"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    again = sgd(tmp_path)
    again.restore(tmp_path / "moved" / "s_iter_2.solverstate")
    assert_same(parameters(again), want)


def test_an_old_state_has_blobs_of_four_axes(tmp_path: pathlib.Path) -> None:
    solver = sgd(tmp_path)
    solver.step(1)
    solver.snapshot()
    path = tmp_path / "s_iter_1.solverstate"
    state = SolverState.FromString(path.read_bytes())
    for blob in state.history:
        num, channels, height, width = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
        old = BlobProto(num=num, channels=channels, height=height, width=width, data=blob.data)
        blob.CopyFrom(old)
    path.write_bytes(state.SerializeToString())
    (tmp_path / "s_iter_1.solverstate.resume.json").unlink()
    again = sgd(tmp_path)
    again.restore(path)
    solver.step(2)
    again.step(2)
    assert_same(parameters(again), parameters(solver))


def test_a_state_without_weights_restores_the_history_alone(tmp_path: pathlib.Path) -> None:
    solver = sgd(tmp_path)
    before = parameters(solver)
    state = SolverState(iter=7)
    for shape in ((4, 3, 2, 2), (4,), (6, 12), (6,)):
        blob = state.history.add(data=np.ones(int(np.prod(shape)), np.float32))
        blob.shape.dim.extend(shape)
    (tmp_path / "a.solverstate").write_bytes(state.SerializeToString())
    solver.restore(tmp_path / "a.solverstate")
    assert solver.iter == 7
    assert_same(parameters(solver), before)
    assert all((array == 1).all() for array in solver._update.history())


# ---------- what does not fit or is damaged


@pytest.fixture
def saved(tmp_path: pathlib.Path) -> pathlib.Path:
    solver = sgd(tmp_path)
    solver.step(2)
    solver.snapshot()
    return tmp_path / "s_iter_2.solverstate"


def refused(folder: pathlib.Path, path: pathlib.Path, message: str, error: Any = SolverError, net: str = NET) -> None:
    """The state is refused, and nothing of the solver has changed."""
    solver = sgd(folder, "random_seed: 9", net)
    solver.step(1)
    before, history = parameters(solver), [array.copy() for array in solver._update.history()]
    with pytest.raises(error, match=message):
        solver.restore(path)
    assert solver.iter == 1
    assert_same(parameters(solver), before)
    assert all((a == b).all() for a, b in zip(solver._update.history(), history))


def test_missing_state(tmp_path: pathlib.Path) -> None:
    refused(tmp_path, tmp_path / "none.solverstate", r"Could not open file .*none\.solverstate \(File not found\)")
    refused(tmp_path, tmp_path / "none.solverstate.h5", "Could not open file")


def test_missing_weights(saved: pathlib.Path) -> None:
    (saved.parent / "s_iter_2.caffemodel").unlink()
    refused(saved.parent, saved, r"Could not open file .*s_iter_2\.caffemodel \(File not found\), the weights of")


def test_damaged_weights(saved: pathlib.Path) -> None:
    weights = saved.parent / "s_iter_2.caffemodel"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(saved.parent, saved, "Failed to parse NetParameter file", WeightsError)


@pytest.mark.parametrize("keep", [1, 30, 200, -10])
def test_truncated_state(saved: pathlib.Path, keep: int) -> None:
    saved.write_bytes(saved.read_bytes()[:keep])
    refused(saved.parent, saved, "Failed to parse SolverState file|Incorrect length of history blobs")


def test_truncated_hdf5_state(tmp_path: pathlib.Path) -> None:
    solver = sgd(tmp_path, "snapshot_format: HDF5")
    solver.snapshot()
    path = tmp_path / "s_iter_0.solverstate.h5"
    path.write_bytes(path.read_bytes()[:700])
    refused(tmp_path, path, "Couldn't open solver state file .*truncated, damaged or no solver state")


def test_empty_state_and_files_of_other_kinds(saved: pathlib.Path) -> None:
    folder = saved.parent
    (folder / "empty").write_bytes(b"")
    refused(folder, folder / "empty", "is empty")
    refused(folder, folder / "net.prototxt", "it is text, not a binary file")
    refused(folder, folder / "s_iter_2.caffemodel", "no solver state: it does not say its iteration")


def test_state_of_another_net(saved: pathlib.Path) -> None:
    refused(
        saved.parent,
        saved,
        r"has shape \(6, 12\), expected \(7, 12\)",
        net=NET.replace("num_output: 6", "num_output: 7"),
    )
    one_less = NET.replace("inner_product_param {", "inner_product_param { bias_term: false")
    refused(saved.parent, saved, r"Incorrect length of history blobs\. .* has 4, this solver 3", net=one_less)


def test_state_of_another_solver_type(saved: pathlib.Path) -> None:
    adam = solver_of(saved.parent, SGD.replace("SGD", "Adam"))
    with pytest.raises(SolverError, match="has 4, this solver 8: it is of another net or solver type"):
        adam.restore(saved)


# ---------- where they cannot be written


def test_a_prefix_that_cannot_be_written_fails_at_the_start(tmp_path: pathlib.Path) -> None:
    text = SGD + f'snapshot: 5 snapshot_prefix: "{tmp_path}/none/s"'
    with pytest.raises(SolverError, match=r"Cannot write to snapshot prefix '.*/none/s'\.  Make sure that the"):
        solver_of(tmp_path, text)
    late = solver_of(tmp_path, text.replace("snapshot: 5", ""))  # only a snapshot after training
    with pytest.raises(SolverError, match="Cannot write to snapshot prefix"):
        late.solve()
    assert late.iter == 0


def test_snapshots_need_a_prefix(tmp_path: pathlib.Path) -> None:
    param = caffe.proto.caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", snapshot=3)
    with pytest.raises(SolverError, match="snapshot is specified but snapshot_prefix is not"):
        caffe.get_solver(param)


def test_the_prefix_is_the_solvers_path_or_may_be_a_folder(tmp_path: pathlib.Path) -> None:
    solver_of(tmp_path, SGD).snapshot()
    assert (tmp_path / "solver_iter_0.solverstate").exists()
    (tmp_path / "folder").mkdir()
    solver_of(tmp_path, SGD + f'snapshot_prefix: "{tmp_path}/folder"').snapshot()
    assert (tmp_path / "folder" / "solver_iter_0.solverstate").exists()


@pytest.mark.parametrize(("suffix", "weights_find_room"), [("", False), ("", True), (".h5", False)])
def test_on_a_full_disk_the_last_snapshot_survives(
    tmp_path: pathlib.Path, suffix: str, weights_find_room: bool
) -> None:
    text = SGD.replace("SGD", "Adam") + f'snapshot_prefix: "{tmp_path}/s" '
    solver = solver_of(tmp_path, text + f"snapshot_format: {'HDF5' if suffix else 'BINARYPROTO'}")
    solver.step(2)
    solver.snapshot()
    want = parameters(solver)
    size = (tmp_path / f"s_iter_2.caffemodel{suffix}").stat().st_size if weights_find_room else 300
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    solver.step(1)
    with full_disk(size), pytest.raises(SolverError, match=r"iteration 3: .* File too large.*(?<!\.)\. Earlier"):
        solver.snapshot()
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == ({f"s_iter_3.caffemodel{suffix}"} if weights_find_room else set())
    solver.snapshot()  # once there is room again
    again = solver_of(tmp_path, text)
    again.restore(f"{tmp_path}/s_iter_2.solverstate{suffix}")
    assert_same(parameters(again), want)


def test_what_a_killed_run_left_is_removed(tmp_path: pathlib.Path) -> None:
    old, fresh, other = ".s_iter_9.caffemodel.ab12.tmp", ".s_iter_9.solverstate.cd34.tmp", ".t_iter_9.caffemodel.ab.tmp"
    for name in (old, fresh, other):
        (tmp_path / name).write_bytes(b"x")
    for name in (old, other):
        os.utime(tmp_path / name, (1e9, 1e9))
    sgd(tmp_path, "snapshot: 5")
    assert {name for name in os.listdir(tmp_path) if name.endswith(".tmp")} == {fresh, other}


# ---------- the file beside it


def test_the_resume_file_of_another_state_is_not_used(saved: pathlib.Path) -> None:
    state = SolverState.FromString(saved.read_bytes())
    state.current_step = 1
    saved.write_bytes(state.SerializeToString())
    with pytest.warns(RuntimeWarning, match=r"resume\.json is not used: it belongs to another solver state"):
        sgd(saved.parent).restore(saved)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}'])
def test_a_damaged_resume_file_is_not_used(saved: pathlib.Path, content: str) -> None:
    pathlib.Path(f"{saved}.resume.json").write_text(content)
    solver = sgd(saved.parent)
    with pytest.warns(RuntimeWarning, match="is not used: .* The data and random numbers begin anew"):
        solver.restore(saved)
    assert solver.iter == 2


def test_the_resume_file_can_be_read(saved: pathlib.Path) -> None:
    content = json.loads(pathlib.Path(f"{saved}.resume.json").read_text())
    assert content["version"] == 1
    assert content["solver_state"]["size"] == saved.stat().st_size
    assert len(content["losses"]["losses"]) == 1


def test_ranks_other_than_the_root_write_nothing(tmp_path: pathlib.Path) -> None:
    solver = sgd(tmp_path)
    caffe.set_solver_rank(1)
    try:
        solver.snapshot()
    finally:
        caffe.set_solver_rank(0)
    assert not list(tmp_path.glob("s_iter_*"))


def test_the_newest_weights_are_those_of_the_solver_file(tmp_path: pathlib.Path) -> None:
    """A prototxt's `weights` go into train and test nets, several separated by commas."""
    solver = sgd(tmp_path)
    solver.step(1)
    solver.snapshot()
    fine = solver_of(
        tmp_path,
        SGD
        + f'weights: "{tmp_path}/s_iter_1.caffemodel, {tmp_path}/s_iter_1.caffemodel" test_iter: 1 test_interval: 9',
    )
    assert_same(parameters(fine), parameters(solver))
    np.testing.assert_array_equal(fine.test_nets[0].params["ip"][0].data, solver.net.params["ip"][0].data)
    path = write_solver(tmp_path, SGD + 'weights: "none.caffemodel"')
    with pytest.raises(WeightsError, match=r"Could not open file none\.caffemodel"):
        caffe.get_solver(path)
