"""Workers against one process on the joined batch, modes, compression: without Ray."""

from __future__ import annotations

import pathlib
import random
import threading
import time

import h5py
import numpy as np
import pytest

from pycaffe.cluster import Run
from pycaffe.cluster.protocol import shards
from pycaffe.cluster.protocol.messages import Counted, Push, Stale
from pycaffe.cluster.protocol.shard_server import ShardServer
from pycaffe.cluster.training import exchange
from pycaffe.cluster.training.data_position import Place
from pycaffe.cluster.training.recorder import Recorder
from pycaffe.errors import InputError
from pycaffe.net import Net
from pycaffe.solvers import get_solver
from tests.cluster.training.in_process import LocalRun, train_here
from tests.cluster.training.small_net import TYPES, alone, assert_same, write_solver
from tests.net.nets import layer


@pytest.fixture(autouse=True)
def several_messages_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of these small nets travels in one message otherwise, and each tensor whole."""
    monkeypatch.setattr(exchange, "SMALLEST", 1)
    monkeypatch.setattr(shards, "SMALLEST_PART", 4)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("solver_type", TYPES)
def test_sync_equals_one_process_on_the_joined_batch(solver_type: str, workers: int, tmp_path: pathlib.Path) -> None:
    run = train_here(write_solver(tmp_path, 4, TYPES[solver_type]), workers)
    assert_same(run.params, alone(write_solver(tmp_path, 4 * workers, TYPES[solver_type])))


@pytest.mark.parametrize(
    "more",
    [
        "momentum: 0.9 clip_gradients: 0.1",
        "momentum: 0.9 iter_size: 3",
        'momentum: 0.9 lr_policy: "multistep" stepvalue: 3 stepvalue: 4 stepvalue: 12',
        'momentum: 0.9 regularization_type: "L1" lr_policy: "poly" power: 2',
    ],
)
def test_sync_with_what_solvers_know_besides(more: str, tmp_path: pathlib.Path) -> None:
    run = train_here(write_solver(tmp_path, 4, more), 2)
    if "iter_size" in more:  # a step of one process reads its iter_size batches one after the other
        assert run.reports[0].batches in ((0, 2, 4), (1, 3, 5))
    assert_same(run.params, alone(write_solver(tmp_path, 8, more)))


def test_two_runs_are_equal_to_the_bit(tmp_path: pathlib.Path) -> None:
    solver = write_solver(tmp_path, 4, "momentum: 0.9")
    first, second = (train_here(solver, 3).params for _ in range(2))
    for name in first:
        for one, other in zip(first[name], second[name]):
            np.testing.assert_array_equal(one, other)


def test_a_layer_that_does_not_learn(tmp_path: pathlib.Path) -> None:
    body = layer("frozen", "Scale", "conv", "conv", rest="param { lr_mult: 0 } scale_param { bias_term: false }")
    more = 'type: "Adam" momentum: 0.9 momentum2: 0.99 base_lr: 0.01'
    run = train_here(write_solver(tmp_path, 4, more, body=body), 2)
    assert_same(run.params, alone(write_solver(tmp_path, 8, more, body=body)))
    assert run.params["frozen"][0].tolist() == [1, 1, 1, 1]


def test_batch_norm_keeps_the_statistics_of_worker_0(tmp_path: pathlib.Path) -> None:
    body = layer("norm", "BatchNorm", "conv", "conv")
    more = "base_lr: 0 weight_decay: 0"  # so that every worker sees what one process would see of its batches
    run = train_here(write_solver(tmp_path, 4, more, body=body, steps=3), 2)
    one = get_solver(write_solver(tmp_path, 4, more, body=body, steps=3))
    for _ in range(3):
        one.step(1)
        one.net.forward(end="data")  # the batch of worker 1
    for got, want in zip(run.params["norm"], one.net.params["norm"]):
        np.testing.assert_allclose(got, want.data, rtol=1e-5)


def payload(run: LocalRun, what: str) -> float:
    """Bytes per worker and step, over those of the parameters, but for the first pull."""
    sizes = [getattr(report.traffic, what) for report in run.reports if report.clock > 0]
    return float(np.mean(sizes)) / run.parameter_bytes


def wide_solver(folder: pathlib.Path) -> str:
    body = layer("wide", "InnerProduct", "conv", "middle",
                 rest='inner_product_param { num_output: 300 weight_filler { type: "xavier" } }')  # fmt: skip
    return write_solver(folder, 4, steps=6, body=body)


@pytest.mark.parametrize(
    ("compression", "pushed", "pulled"), [(None, 1.0, 1.0), ("fp16", 0.5, 0.5), ("topk:0.01", 0.03, 1.0)]
)
def test_payload(compression: str | None, pushed: float, pulled: float, tmp_path: pathlib.Path) -> None:
    run = train_here(wide_solver(tmp_path), 2, compression=compression)
    assert payload(run, "pushed") <= pushed * 1.01
    assert payload(run, "pulled") <= pulled * 1.01


@pytest.mark.parametrize("compression", ["fp16", "topk:0.5"])
def test_compressed_gradients_lead_to_about_the_same_place(compression: str, tmp_path: pathlib.Path) -> None:
    solver = write_solver(tmp_path, 4, steps=40)
    losses = [
        np.mean([report.loss for report in train_here(solver, 2, compression=kind).reports if report.clock >= 30])
        for kind in (None, compression)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def leads(run: LocalRun, workers: int) -> int:
    """By how many steps the furthest worker was ever ahead: it begins a step while another has sent fewer."""
    events = [(r.pulled_at, 1, r.rank, r.clock) for r in run.reports]
    events += [(r.pushed_at, 0, r.rank, r.clock) for r in run.reports]
    sent = [0] * workers
    lead = 0
    for _, is_pull, rank, clock in sorted(events):
        if is_pull:
            lead = max(lead, clock - min(sent))
        else:
            sent[rank] = clock + 1
    return lead


def test_gradients_travel_while_backward_goes_on(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server has those of the last layers before backward goes on to the layers below."""
    has_some, waited = threading.Event(), []
    push, backward = ShardServer.push, Net._backward

    def push_and_tell(server: ShardServer, message: Push) -> Counted | Stale:
        answer = push(server, message)
        has_some.set()
        return answer

    def wait_and_go_on(net: Net, start: int, end: int) -> None:
        if start == len(net.layers) - 1:
            has_some.clear()
        else:
            waited.append(has_some.wait(10))
        backward(net, start, end)

    monkeypatch.setattr(ShardServer, "push", push_and_tell)
    monkeypatch.setattr(Net, "_backward", wait_and_go_on)
    train_here(write_solver(tmp_path, 4, steps=3), 1)
    assert waited == 3 * [True]


@pytest.mark.parametrize("staleness", [0, 2])
def test_nobody_is_further_ahead_than_ssp_allows(staleness: int, tmp_path: pathlib.Path) -> None:
    dice = random.Random(5)
    slow = {rank: lambda: time.sleep(0.02 * (dice.random() < 0.3)) for rank in range(3)}
    slow[1] = lambda: time.sleep(0.01)
    solver = write_solver(tmp_path, 4, steps=30)
    run = train_here(solver, 3, mode="ssp", staleness=staleness, slow=slow)
    assert leads(run, 3) == staleness
    assert sorted(report.clock for report in run.reports) == sorted([*range(30)] * 3)


def test_in_async_nobody_waits(tmp_path: pathlib.Path) -> None:
    run = train_here(write_solver(tmp_path, 4, steps=20), 2, mode="async", slow={1: lambda: time.sleep(0.03)})
    assert leads(run, 2) >= 10
    losses = [report.loss for report in run.reports]
    assert np.mean(losses[-8:]) < np.mean(losses[:8])


def test_steps_beyond_the_last_iteration_are_not_displayed(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = write_solver(tmp_path, 4, 'lr_policy: "poly" power: 0.5 display: 2', steps=6)
    with caplog.at_level("INFO", "pycaffe"):
        run = train_here(solver, 1, mode="async", beyond=4)
    assert len(run.reports) == 10
    shown = [r.getMessage() for r in caplog.records if ", lr = " in r.getMessage()]
    assert [line.split(",")[0] for line in shown] == [f"Iteration {number}" for number in (0, 2, 4, 6)]


@pytest.mark.parametrize("mode", ["ssp", "async"])
def test_clipping_without_sync_is_by_each_push(mode: str, tmp_path: pathlib.Path) -> None:
    solver = write_solver(tmp_path, 4, "clip_gradients: 0.01 weight_decay: 0", steps=1)
    before = alone(write_solver(tmp_path, 4, "base_lr: 0", steps=1, prefix="before"))
    run = train_here(solver, 1, mode=mode, staleness=3 if mode == "ssp" else None)
    moved = [(a - b) for name in before for a, b in zip(run.params[name], before[name])]
    moved[1] = moved[1] / 2  # lr_mult of conv's bias
    assert np.sqrt(sum(float((part**2).sum()) for part in moved)) == pytest.approx(0.05 * 0.01, rel=1e-3)


@pytest.mark.parametrize(("mode", "staleness"), [("sync", None), ("ssp", 1)])
def test_a_gradient_that_is_none_is_refused_counted_and_reported(
    mode: str, staleness: int | None, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = write_solver(tmp_path, 4, "momentum: 0.9", steps=8)
    with h5py.File(tmp_path / "data.h5", "a") as file:
        file["data"][4 * 5, 0, 0, 0] = np.nan  # batch 5: worker 1's third
    with pytest.warns(RuntimeWarning, match="The loss is nan at iteration 2"):
        run = train_here(solver, 2, mode=mode, staleness=staleness)
    assert [(r.rank, r.clock) for r in run.reports if r.traffic.refused] == [(1, 2)]
    recorder = Recorder(Run(iter=0), Place(), None)
    recorder.begin(1, 2, 0)
    for report in run.reports:
        recorder.add(report)
    assert recorder.run.refused == {1: 1}
    assert "The gradient of worker 1 at iteration 2 has NaN or infinity" in caplog.text
    assert all(np.isfinite(array).all() for arrays in run.params.values() for array in arrays)


def test_batches_follow_each_other_and_every_epoch_is_whole(tmp_path: pathlib.Path) -> None:
    run = train_here(write_solver(tmp_path, 4, steps=12), 2)
    assert sorted(number for report in run.reports for number in report.batches) == list(range(24))
    for report in run.reports:
        assert report.batches == (2 * report.clock + report.rank,)


def test_a_net_that_is_fed_from_python_is_refused(tmp_path: pathlib.Path) -> None:
    path = pathlib.Path(write_solver(tmp_path, 4))
    net = tmp_path / "run_net4.prototxt"
    net.write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'
        'layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 } } }\n'
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "loss" }\n'
    )
    with pytest.raises(InputError, match=r"Layer 'in' \(Input\) is fed from Python"):
        train_here(str(path), 1)
