"""The loop: steps, tests, displays, callbacks, and what asks it to stop."""

from __future__ import annotations

import logging
import pathlib
import re
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import caffe
from pycaffe import parallel
from pycaffe.errors import SolverError
from pycaffe.solvers import Action, Solver
from tests.net.nets import data, ip, layer
from tests.solvers.runs import NET, feed, parameters, solver_of, write_solver

SGD = (
    'type: "SGD" base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 max_iter: 6 random_seed: 2 snapshot_after_train: false\n'
)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "pycaffe.solver"]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "pycaffe")
    return caplog


# ---------- steps


def test_the_classes_and_types(tmp_path: pathlib.Path) -> None:
    for name in ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"):
        momentum = "" if name in ("AdaGrad", "RMSProp") else "momentum: 0.9"
        path = write_solver(tmp_path, f'type: "{name}" base_lr: 0.1 lr_policy: "fixed" {momentum}')
        cls = getattr(caffe, f"{name}Solver")
        assert type(caffe.get_solver(path)) is cls
        assert cls(path).type == name
        assert issubclass(cls, caffe.SGDSolver)
    assert caffe.SGDSolver(path).type == "SGD"  # whatever the prototxt says
    old = write_solver(tmp_path, 'solver_type: NESTEROV base_lr: 0.1 lr_policy: "fixed"')
    assert isinstance(caffe.get_solver(old), caffe.NesterovSolver)
    with pytest.raises(SolverError, match="Unknown solver type: Adagrad"):
        caffe.get_solver(write_solver(tmp_path, 'type: "Adagrad" base_lr: 0.1 lr_policy: "fixed"'))


def test_a_step_is_a_gradient_step(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD.replace("0.9", "0"))
    assert (solver.iter, solver.lr, solver.param.base_lr) == (0, pytest.approx(0.1), pytest.approx(0.1))
    before = parameters(solver)
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    gradients = {f"{n}/{i}": b.diff.copy() for n, blobs in solver.net.params.items() for i, b in enumerate(blobs)}
    solver.step(1)
    assert solver.iter == 1
    for name, rate in (("conv/0", 0.1), ("conv/1", 0.2), ("ip/0", 0.1)):  # lr_mult: 2 of conv's bias
        np.testing.assert_allclose(
            before[name] - parameters(solver)[name], rate * gradients[name], rtol=1e-4, atol=1e-7
        )


def test_iter_size_is_a_larger_batch(tmp_path: pathlib.Path) -> None:
    one, three = solver_of(tmp_path, SGD), solver_of(tmp_path, SGD + "iter_size: 3")
    one.step(2)
    three.step(2)
    for name, values in parameters(one).items():
        np.testing.assert_allclose(parameters(three)[name], values, rtol=1e-5, atol=1e-6)


def test_shared_parameters_are_stepped_once(tmp_path: pathlib.Path) -> None:
    shared = 'param { name: "w" lr_mult: 0.5 } param { name: "b" }'
    net = (
        data(4, 3)
        + ip("a", "data", 3, shared)
        + ip("b", "a", 3, shared)
        + layer("loss", "Reduction", "b", "loss", "loss_weight: 1")
    )
    solver = caffe.get_solver(write_solver(tmp_path, SGD, net))
    solver.net.blobs["data"].data[...] = np.random.default_rng(1).standard_normal((4, 3))
    before = solver.net.params["a"][0].data.copy()
    solver.net.clear_param_diffs()
    solver.net.forward()
    solver.net.backward()
    gradient = solver.net.params["b"][0].diff.copy()
    solver.step(1)
    np.testing.assert_allclose(before - solver.net.params["b"][0].data, 0.05 * gradient, rtol=1e-4)
    assert solver._update.history_shapes == [(3, 3), (3,)]


def test_views_stay_live_and_the_diff_is_what_was_subtracted(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD)
    values, diff = solver.net.params["ip"][0].data, solver.net.params["ip"][0].diff
    before = values.copy()
    solver.step(1)
    np.testing.assert_allclose(before - values, diff, rtol=1e-4, atol=1e-7)
    solver.step(1)
    np.testing.assert_array_equal(values, solver.net.params["ip"][0].data)


def test_a_diff_that_is_looked_at_late_is_what_was_subtracted(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD)
    solver.step(1)
    weight, bias = solver.net.params["conv"]
    before = bias.data.copy(), weight.data.copy()
    solver.step(1)
    solver.snapshot()
    solver._update.history()[0][...] = 5  # what is restored, for one, writes there
    np.testing.assert_allclose(before[1] - weight.data, weight.diff, atol=1e-6)
    np.testing.assert_allclose(before[0] - bias.data, bias.diff, atol=1e-6)
    solver.net.clear_param_diffs()
    assert not weight.diff.any()
    solver.step(1)
    solver.net.clear_param_diffs()
    assert not solver.net.params["ip"][0].diff.any(), "nobody had looked"


def test_gradients_add_to_what_a_step_left(tmp_path: pathlib.Path) -> None:
    solver, other = solver_of(tmp_path, SGD), solver_of(tmp_path, SGD)
    other.step(1)
    subtracted = other.net.params["ip"][0].diff.copy()
    solver.step(1)
    solver.net.forward()
    solver.net.backward()  # not cleared before
    other.net.clear_param_diffs()
    other.net.forward()
    other.net.backward()
    want = subtracted + other.net.params["ip"][0].diff
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, want, rtol=1e-5, atol=1e-7)


def test_random_seed_decides_the_run(tmp_path: pathlib.Path) -> None:
    runs = []
    for seed in (1, 1, 2):
        solver = solver_of(tmp_path, SGD.replace("random_seed: 2", f"random_seed: {seed}"))
        solver.step(3)
        runs.append(parameters(solver)["ip/0"])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()


def test_each_rank_has_a_seed_of_its_own(tmp_path: pathlib.Path) -> None:
    try:
        caffe.set_solver_rank(1)
        second = parameters(solver_of(tmp_path, SGD))
    finally:
        caffe.set_solver_rank(0)
    np.testing.assert_array_equal(
        second["ip/0"], parameters(solver_of(tmp_path, SGD.replace("seed: 2", "seed: 3")))["ip/0"]
    )


def test_a_net_whose_weights_were_loaded_from_a_file_trains(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD)
    solver.net.save(str(tmp_path / "w.caffemodel"))
    solver.step(2)
    again = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    again.net.copy_from(str(tmp_path / "w.caffemodel"))
    feed(again.net)
    written = (tmp_path / "w.caffemodel").read_bytes()
    again.step(2)
    np.testing.assert_array_equal(parameters(again)["ip/0"], parameters(solver)["ip/0"])
    assert (tmp_path / "w.caffemodel").read_bytes() == written


def test_nets_live_longer_than_their_solver(tmp_path: pathlib.Path) -> None:
    net = solver_of(tmp_path, SGD).net
    assert net.forward()["loss"].shape == ()


def test_fields_of_forks_are_read(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD + 'eval_type: "detection" ap_version: "11point" show_per_class_result: true')
    solver.step(1)
    assert solver.param.ap_version == "11point"


# ---------- callbacks and actions


def test_callbacks_run_before_forward_and_before_the_update(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD)
    calls: list[tuple[str, bool]] = []

    def has_gradient() -> bool:
        return bool(solver.net.params["ip"][0].diff.any())

    solver.add_callback(
        lambda: calls.append(("start", has_gradient())), lambda: calls.append(("ready", has_gradient()))
    )
    solver.step(2)
    assert calls == [("start", False), ("ready", True)] * 2


def test_nccl_is_a_callback(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_multiprocess", False)  # puts back what NCCL sets
    solver = solver_of(tmp_path, SGD)
    nccl = caffe.NCCL(solver, caffe.NCCL.new_uid())
    nccl.bcast()
    solver.add_callback(nccl)
    solver.net.after_backward(nccl)
    solver.step(1)
    assert isinstance(caffe.NCCL.new_uid(), bytes)


def test_what_is_asked_after_an_iteration_is_done(tmp_path: pathlib.Path, log: Any) -> None:
    answers = [Action.NONE, Action.SNAPSHOT, Action.STOP]
    solver = solver_of(tmp_path, SGD + f'snapshot_prefix: "{tmp_path}/s"')
    solver.set_action_function(lambda: answers.pop(0))
    solver.solve()
    assert solver.iter == 3
    assert (tmp_path / "s_iter_2.solverstate").exists()
    assert not (tmp_path / "s_iter_3.solverstate").exists()
    assert lines(log)[-1] == "Optimization stopped early."


def test_stop_while_testing(tmp_path: pathlib.Path, log: Any) -> None:
    solver = solver_of(tmp_path, SGD + "test_iter: 3 test_interval: 2")
    answers = [Action.NONE, Action.STOP]
    solver.set_action_function(lambda: answers.pop(0) if answers else Action.NONE)
    solver.solve()
    assert solver.iter == 0
    assert lines(log)[-2:] == ["Test interrupted.", "Optimization stopped early."]


def test_share_weights(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD)
    other = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    solver.share_weights(other)
    solver.step(1)
    np.testing.assert_array_equal(other.params["ip"][0].data, solver.net.params["ip"][0].data)


# ---------- reports


def test_the_log_of_a_run(tmp_path: pathlib.Path, log: Any) -> None:
    solver = solver_of(
        tmp_path, SGD + "display: 3 test_iter: 2 test_interval: 4 average_loss: 2 test_compute_loss: true"
    )
    losses = []
    solver.add_callback(lambda: None, lambda: losses.append(float(solver.net.blobs["loss"].data)))
    log.clear()
    solver.solve()
    number = r"[\d.e+-]+"
    patterns = [
        "Solving small",
        "Learning Rate Policy: fixed",
        r"Iteration 0, Testing net \(#0\)",
        f"Test loss: {number}",
        rf"    Test net output #0: loss = {number} \(\* 1 = {number} loss\)",
        rf"Iteration 0 \({number} iter/s, {number}s/3 iters\), loss = {number}",
        rf"    Train net output #0: loss = {number} \(\* 1 = {number} loss\)",
        "Iteration 0, lr = 0.1",
        rf"Iteration 3 \({number} iter/s, {number}s/3 iters\), loss = {number}",
        r"    Train net output #0: loss = .*",
        "Iteration 3, lr = 0.1",
        r"Iteration 4, Testing net \(#0\)",
        "Test loss: .*",
        "    Test net output #0: .*",
        f"Iteration 6, loss = {number}",
        "Optimization Done.",
    ]
    got = lines(log)
    assert len(got) == len(patterns), got
    for line, pattern in zip(got, patterns):
        assert re.fullmatch(pattern, line), line
    smoothed = float(got[8].rpartition("= ")[2])
    assert smoothed == pytest.approx((losses[2] + losses[3]) / 2, rel=1e-5)  # average_loss: 2


TWICE = "import sys, caffe; {0}; print('quiet', file=sys.stderr); caffe.init_log(); {0}"


def test_quiet_until_asked_and_then_the_originals_parser_reads_the_log(tmp_path: pathlib.Path) -> None:
    """As tools/extra/parse_log.py and extract_seconds.py look at lines: fields by blanks, numbers by these patterns."""
    path = write_solver(tmp_path, SGD + "display: 2 test_iter: 1 test_interval: 3")
    script = TWICE.format(f"caffe.get_solver({path!r}).solve()")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    before, _, log = done.stderr.partition("quiet\n")
    assert (done.stdout, before) == ("", "")
    rows = []
    for line in log[log.index("Solving") - 60 :].splitlines()[1:]:
        assert re.match(r"[IE]\d{4} \d\d:\d\d:\d\d\.\d{6} ", line), line
        iteration = re.search(r"Iteration (\d+)", line)
        output = re.search(r"(Train|Test) net output #(\d+): (\S+) = ([\.\deE+-]+)", line)
        rate = re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line)
        rows += [iteration[1] if iteration else output[1] if output else rate[1] if rate else ""]
    displays = "0 Test 0 Train 0 2 Train 2 3 Test 4 Train 4 6 6 Test".split()
    assert rows == ["", "", *displays, ""]
    assert " solver.cpp:239] Iteration 2 (" in log
    assert " sgd_solver.cpp:112] Iteration 2, lr = 0.1" in log


def test_no_test_at_the_start_where_that_is_not_wanted(tmp_path: pathlib.Path, log: Any) -> None:
    solver = solver_of(tmp_path, SGD + "test_iter: 1 test_interval: 4 test_initialization: false")
    solver.solve()
    assert [line for line in lines(log) if "Testing" in line] == ["Iteration 4, Testing net (#0)"]


def test_a_test_scores_the_present_weights(tmp_path: pathlib.Path, log: Any) -> None:
    solver = solver_of(tmp_path, SGD + "test_iter: 1 test_interval: 1")
    solver.step(4)
    scores = [float(re.findall(r"loss = ([\d.]+) ", line)[0]) for line in lines(log) if "Test net output" in line]
    assert len(set(scores)) == 4  # the compiled test net must notice each update
    reference = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST, engine="torch")
    feed(reference)
    before = solver_of(tmp_path, SGD)
    before.step(3)
    before.share_weights(reference)
    assert scores[3] == pytest.approx(float(reference.forward()["loss"]), rel=1e-4)


def test_tests_average_over_their_batches(tmp_path: pathlib.Path, log: Any) -> None:
    source = f'hdf5_data_param {{ source: "{tmp_path}/list" batch_size: 1 }}'
    net = layer("d", "HDF5Data", "", "d", source)
    import h5py

    with h5py.File(tmp_path / "d.h5", "w") as file:
        file["d"] = np.array([[1, 2], [3, 4], [8, 9]], np.float32)
    (tmp_path / "list").write_text(f"{tmp_path}/d.h5\n")
    net += ip("ip", "d", 1) + layer("loss", "Reduction", "ip", "loss", "loss_weight: 1 include { phase: TRAIN }")
    net += layer("same", "Power", "d", "same", "include { phase: TEST }")
    net += layer("quiet", "Silence", "ip", "", "include { phase: TEST }")
    solver = caffe.get_solver(write_solver(tmp_path, SGD + "test_iter: 3 test_interval: 5", net))
    solver.step(1)
    outputs = [line for line in lines(log) if "Test net output" in line]
    assert outputs == ["    Test net output #0: same = 4", "    Test net output #1: same = 5"]


def test_clipping_is_reported(tmp_path: pathlib.Path, log: Any) -> None:
    solver = solver_of(tmp_path, SGD + "clip_gradients: 0.01")
    solver.step(1)
    (line,) = [line for line in lines(log) if "Gradient clipping" in line]
    norm, scale = re.fullmatch(
        r"Gradient clipping: scaling down gradients \(L2 norm ([\d.]+) > 0\.01\) by scale factor ([\d.e-]+)", line
    ).groups()  # type: ignore[union-attr]
    assert float(norm) * float(scale) == pytest.approx(0.01, rel=1e-4)


def test_debug_info_of_the_iterations_that_are_displayed(tmp_path: pathlib.Path, log: Any) -> None:
    solver = solver_of(tmp_path, SGD + "debug_info: true display: 2 test_iter: 1 test_interval: 9")
    log.clear()
    solver.step(3)
    text = [record.getMessage() for record in log.records if record.name == "pycaffe.net"]
    norms = [line for line in text if line.startswith("    [Backward] All net params (data, diff): L1 norm = (")]
    assert len(norms) == 2
    assert sum("[Forward] Layer ip, top blob ip" in line for line in text) == 3  # two displays and the test net
    assert sum("[Backward] Layer ip" in line for line in text) == 2 * 3


# ---------- numbers that are none


def test_nan_in_the_data_is_told(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD)
    solver.step(2)
    solver.net.blobs["x"].data[0, 1, 2, 0] = np.nan
    with pytest.warns(
        RuntimeWarning,
        match=r"The loss is nan at iteration 2\. It began at iteration 2, in the data of layer 'x' \(Input\): NaN",
    ):
        solver.step(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solver.step(1)  # told once, and training goes on as in the original
    assert solver.iter == 4


def test_a_step_that_is_too_large_is_told(tmp_path: pathlib.Path) -> None:
    solver = solver_of(tmp_path, SGD.replace("base_lr: 0.1", "base_lr: 1e38"))
    with pytest.warns(RuntimeWarning, match="It began .* iteration [01]"):
        solver.step(4)


def test_a_gradient_of_nan_is_found_where_it_arose(tmp_path: pathlib.Path) -> None:
    root = layer("power", "Power", "ip", "power", "power_param { power: 0.5 }")  # an infinite slope at 0
    net = data(2, 3) + ip("first", "data", 3) + ip("ip", "first", 2) + root
    net += layer("loss", "Reduction", "power", "loss", "loss_weight: 1")
    solver = caffe.get_solver(write_solver(tmp_path, SGD, net))
    for blob in solver.net.params["ip"]:
        blob.data[...] = 0
    with pytest.warns(RuntimeWarning) as caught:
        solver.step(2)
    message = str(caught[0].message)
    assert (
        "The loss is nan at iteration 1. It began in the update after iteration 0: parameter 0 of layer 'first'"
        in message
    )
    assert "its backward gave the first in layer 'power' (Power)" in message


# ---------- solvers that cannot be


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SGD + "average_loss: 0", r"Check failed: average_loss >= 1 \(0 vs\. 1\)"),
        (SGD + "iter_size: 0", "Check failed: iter_size >= 1"),
        (SGD.replace("fixed", "fix"), "Unknown learning rate policy: fix .* Did you mean 'fixed'"),
        (SGD + 'weight_decay: 0.1 regularization_type: "L0"', "Unknown regularization type: L0"),
    ],
)
def test_fields_that_are_wrong(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(SolverError, match=message):
        solver_of(tmp_path, text).step(1)


def test_a_solver_is_made_of_a_message_too(tmp_path: pathlib.Path) -> None:
    from google.protobuf import text_format

    param = caffe.proto.caffe_pb2.SolverParameter(base_lr=0.1, lr_policy="fixed", max_iter=2)
    text_format.Parse(NET, param.net_param)
    solver = Solver(param)
    feed(solver.net)
    solver.step(1)
    param.base_lr = 7  # the solver has its own copy
    assert solver.lr == pytest.approx(0.1)


def test_nan_of_a_layer_is_told(tmp_path: pathlib.Path) -> None:
    net = NET.replace('bottom: "ip" bottom: "t"', 'bottom: "log" bottom: "t"')
    net = net.replace('layer { name: "loss"', layer("log", "Log", "ip") + 'layer { name: "loss"')
    with pytest.warns(RuntimeWarning, match=r"at iteration 0, in the forward of layer 'log' \(Log\): NaN"):
        solver_of(tmp_path, SGD, net).step(1)


def test_solver_mode_gpu_without_a_gpu_warns(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pycaffe import devices

    for name, value in (("gpu_count", lambda: 0), ("_warned", False), ("_mode_gpu", False)):
        monkeypatch.setattr(devices, name, value)
    monkeypatch.delenv("PYCAFFE_REQUIRE_GPU", raising=False)
    with pytest.warns(RuntimeWarning, match="solver_mode: GPU: GPU 0 is not there"):
        solver = solver_of(tmp_path, SGD + "solver_mode: GPU")
    solver.step(1)
    assert solver.iter == 1
