from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import time

import bench_load
import bench_overhead
import gemm_peak
import measure
import numpy as np
import peers
import pytest

import caffe
from tests.benchmarks.conftest import BENCHMARKS


@pytest.fixture
def files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(measure, "FILES", tmp_path / "files")
    return tmp_path / "files"


def test_files_are_written_once_and_again_when_the_net_changed(
    files: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prototxt, weights = measure.net_files("lenet")
    graph = measure.straightforward_file("lenet")
    first = weights.read_bytes()
    for path in (weights, graph):
        path.write_bytes(b"kept")
    measure.net_files("lenet")
    measure.straightforward_file("lenet")
    assert (weights.read_bytes(), graph.read_bytes()) == (b"kept", b"kept")
    prototxt.write_text("# of an earlier version")
    measure.net_files("lenet")
    assert weights.read_bytes() == first, "the seed makes the same weights"
    graph_time = graph.stat().st_mtime
    os.utime(graph, (graph_time - 10, graph_time - 10))
    measure.straightforward_file("lenet")
    assert graph.read_bytes() != b"kept"


def test_peers_give_the_same_output(files: pathlib.Path) -> None:
    paths = (*measure.net_files("lenet"), measure.straightforward_file("lenet"))
    x = peers.example((3, 1, 28, 28))
    mine = np.array(peers.pycaffe(paths, x, 1)(x))
    assert mine.shape == (3, 10)
    np.testing.assert_allclose(peers.onnxruntime(paths, x, 1)(x), mine, rtol=1e-4)
    np.testing.assert_array_equal(peers.PEERS["pycaffe"](paths, x[::-1], 1)(x[::-1]), mine[::-1])


def test_operations_and_bytes() -> None:
    net = caffe.Net(measure.net_param("lenet", batch=2), caffe.TEST)
    # conv1 24x24x20 of 25, conv2 8x8x50 of 20x25, ip1 500 of 800, ip2 10 of 500
    assert measure.flops(net) == 2 * 2 * (11520 * 25 + 3200 * 500 + 500 * 800 + 10 * 500)
    assert measure.weight_bytes(net) == 4 * 431_080
    # relu1 works in place
    assert measure.activation_bytes(net) == 4 * 2 * (784 + 11520 + 2880 + 3200 + 800 + 500 + 10 + 10)


def test_grouped_convolutions_count_once_a_group() -> None:
    spec = caffe.NetSpec()
    spec.data = caffe.layers.Input(shape={"dim": [2, 6, 5, 4]})
    spec.top = caffe.layers.Convolution(spec.data, num_output=9, group=3, kernel_h=3, kernel_w=1)
    assert measure.flops(caffe.Net(spec.to_proto(), caffe.TEST)) == 2 * (2 * 9 * 3 * 4) * (2 * 3)


def test_a_splits_tops_are_its_bottom() -> None:
    spec = caffe.NetSpec()
    spec.data = caffe.layers.Input(shape={"dim": [2, 3]})
    spec.a, spec.b = caffe.layers.ReLU(spec.data), caffe.layers.AbsVal(spec.data)
    net = caffe.Net(spec.to_proto(), caffe.TEST)
    assert "Split" in [layer.type for layer in net.layers]
    assert measure.activation_bytes(net) == 4 * 6 * 3


def test_figures() -> None:
    assert measure.ratio([2, 4, 60], [1, 1, 10]) == 4
    assert measure.geometric_mean([1, 2, 4]) == pytest.approx(2)
    assert measure.spread([3, 1, 2.5]) == "2.5 (1 to 3)"
    assert [measure.verdict(held) for held in (True, False, None)] == ["held", "NOT HELD", "not measured"]


def test_peers_take_turns_in_changing_order(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(measure, "burst", lambda run: run())

    def note(name: str) -> float:
        order.append(name)
        return float(len(order))

    runs = {name: functools.partial(note, name) for name in "abc"}
    assert measure.interleave(runs, 3) == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}
    assert "".join(order) == "abcbcacab"


@pytest.mark.parametrize(
    ("times", "want"),
    [
        ([9.0, 2.0, 4.0, 3.0], 9.0),  # slow: measured once
        ([0.3, 0.2, 0.4, 0.3], 0.3),  # quick: without the first, until half a second is over
        ([0.3, 0.001, 0.009, 0.005, 0.001], 0.005),  # three at the most
    ],
)
def test_a_burst_is_the_median_of_a_few_runs(times: list[float], want: float, monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(times)
    monkeypatch.setattr(measure, "settle", lambda: None)
    monkeypatch.setattr(measure, "elapsed", lambda run: next(left))
    assert measure.burst(lambda: None, seconds=0.5, most=3) == pytest.approx(want)


class Clock:
    """A clock that goes on by sleeping; threads beside it use all of a processor until `busy_until`."""

    def __init__(self, busy_until: float) -> None:
        self.now, self.busy_until = 0.0, busy_until

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return min(self.now, self.busy_until)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_settle_waits_for_busy_threads_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []
    for busy_until in (0.0, 0.095, 3.0):
        clock = Clock(busy_until)
        monkeypatch.setattr(measure, "time", clock)
        measure.settle(limit=0.5)
        waited.append(clock.now)
    assert waited == pytest.approx([0.01, 0.11, 0.5], abs=0.011)


def test_elapsed() -> None:
    assert 0.02 <= measure.elapsed(lambda: time.sleep(0.02)) < 10


def test_processes_in_turn(tmp_path: pathlib.Path) -> None:
    script = "import json, sys; print('noise'); print(json.dumps({'x': int(sys.argv[1])}))"
    runs = measure.in_turn({"a": ["-c", script, "1"], "b": ["-c", script, "2"]}, 2)
    assert runs == {"a": [{"x": 1}] * 2, "b": [{"x": 2}] * 2}
    with pytest.raises(RuntimeError, match=r"ended with 1:\n(?s:.*)ZeroDivisionError"):
        measure.run_process(["-c", "1 / 0"])


def test_products_are_of_the_extent_asked_for() -> None:
    c = gemm_peak.onnxruntime_product(1, extent=64)()[0]
    assert c.shape == (64, 64)
    with gemm_peak.NumpyProduct(1, extent=64) as product:
        assert 0 < product() < 1
        assert 0 < product() < 1


def test_own_memory_sees_what_stays_and_the_peak() -> None:
    script = """
import sys, time
print("ready", flush=True); sys.stdin.readline()
kept = bytearray(b"x") * (30 << 20)
passing = bytearray(b"x") * (50 << 20)
time.sleep(0.2)
del passing
print("done", flush=True); sys.stdin.readline()
"""
    own, peak = bench_load.own_memory(["-c", script])
    assert own / 2**20 == pytest.approx(30, abs=6)
    assert peak / 2**20 == pytest.approx(80, abs=6)
    with pytest.raises(RuntimeError, match="said '', not 'ready'"):
        bench_load.own_memory(["-c", "pass"])


def test_the_sessions_run_is_recorded_and_repeated(files: pathlib.Path) -> None:
    figures = bench_overhead.measure("lenet", 0.1)
    assert set(figures) == {"session", "more"}
    assert figures["session"] > 0
    with pytest.raises(RuntimeError, match="ran no session"):
        bench_overhead.recorded(lambda: None)


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("bench_*.py")))
def test_every_benchmark_has_a_quick_mode(script: str) -> None:
    command = [sys.executable, str(BENCHMARKS / script), "--help"]
    assert "--quick" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_case_is_one_json_object_with_all_peers(files: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import one_case

    chosen = {name: peers.PEERS[name] for name in ("pycaffe", "onnxruntime")}  # the others are not installed everywhere
    monkeypatch.setattr(one_case, "PEERS", chosen)
    monkeypatch.setattr(one_case, "NumpyProduct", lambda threads: gemm_peak.NumpyProduct(threads, extent=64))
    monkeypatch.setattr(one_case, "onnxruntime_product", lambda t: gemm_peak.onnxruntime_product(t, extent=64))
    case = json.loads(json.dumps(one_case.measure("lenet", 2, 1, 0.1)))
    assert {peer: len(times) for peer, times in case["seconds"].items()} == {"pycaffe": 2, "onnxruntime": 2}
    assert len(case["peak"]) == 2
    assert case["flops"] == 2 * 4_586_000
    assert case["difference"]["onnxruntime"] < 1e-5
    assert case["memory"] > 1e6
