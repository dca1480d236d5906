from __future__ import annotations

import pathlib
from typing import Any

import bench_inference
import plot
import pytest
from bars import Bar, bars, fractions, speed_ups
from measure import NETS


def process(pycaffe: float, **others: float) -> dict[str, Any]:
    """One process with two rounds, the second in a moment in which everything is half as fast."""
    seconds = {"pycaffe": pycaffe, **others}
    return {
        "seconds": {peer: [s, 2 * s] for peer, s in seconds.items()},
        "peak": [100.0, 50.0],
        "flops": 40.0,
        "difference": dict.fromkeys(seconds, 1e-6),
        "memory": 1,
    }


def test_figures_are_medians_of_ratios_within_a_round() -> None:
    processes = [process(1, opencv=2), process(1, opencv=5), process(2, opencv=6)]
    assert speed_ups(processes, "opencv") == [2, 5, 3]
    assert fractions(processes) == [0.4, 0.4, 0.2]


def found(cases: bench_inference.Cases) -> dict[str, Bar]:
    return {bar.what: bar for bar in bars(cases)}


def test_bars_that_hold_and_bars_that_do_not() -> None:
    fast, slow = {"opencv": 4, "onnxruntime": 1.2, "openvino": 1.5}, {"opencv": 1.4, "onnxruntime": 1, "openvino": 0.6}
    got = found({("caffenet", 8, 2): [process(1, **fast)], ("vgg16", 1, 2): [process(1, **slow)]})
    each, mean = (
        got["OpenCV's time / pycaffe's, each net, batch 1 and 8"],
        got["OpenCV's time / pycaffe's, geometric mean, batch 1 and 8"],
    )
    assert (each.measured, each.held, each.detail) == (1.4, False, "; below it: vgg16 batch 1: 1.4")
    assert mean.measured == pytest.approx(5.6**0.5)
    assert mean.held
    assert got["onnxruntime's time / pycaffe's, each net"].held
    lrn = got["onnxruntime's time / pycaffe's, geometric mean, LRN nets"]
    assert lrn.measured == pytest.approx(1.2)
    vino = got["OpenVINO's time / pycaffe's, geometric mean"]
    assert not vino.held
    assert vino.detail == "; below it: vgg16 batch 1: 0.6"
    assert str(each).startswith("NOT HELD        1.4 (bar 1.5)  OpenCV's")


def test_bars_look_at_their_own_batches_and_at_two_threads() -> None:
    peers = {"opencv": 9, "onnxruntime": 9, "openvino": 9}
    got = found({("resnet50", 32, 2): [process(0.5, **peers)], ("resnet50", 8, 1): [process(1, **peers)]})
    assert got["OpenCV's time / pycaffe's, each net, batch 1 and 8"].held is None
    assert got["resnet50 at batch 32, of the GEMM peak"].measured == 0.8
    assert got["resnet50 at batch 32, of the GEMM peak"].held is False
    assert got["caffenet at batch 32, of the GEMM peak"].held is None
    assert str(got["caffenet at batch 32, of the GEMM peak"]).startswith("not measured      - (bar 0.7)")


def test_a_run_replaces_its_own_cases(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_inference, "RESULTS", tmp_path / "inference.json")
    assert bench_inference.read_results() == {}
    first, second = process(1, opencv=2), process(2, opencv=2)
    bench_inference.write_results({("vgg16", 1, 2): [first], ("lenet", 1, 1): [first]})
    bench_inference.write_results({("vgg16", 1, 2): [second], ("lenet", 1, 1): []})
    assert bench_inference.read_results() == {("vgg16", 1, 2): [second], ("lenet", 1, 1): [first]}


def test_report_and_row(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [process(0.001, opencv=0.003, onnxruntime=0.001, openvino=0.002)]
    assert (
        bench_inference.row(("vgg16", 8, 2), runs).split()
        == (
            "vgg16 8 2 1.5 (1.5 to 1.5) opencv 3 (3 to 3), openvino 2 (2 to 2), onnxruntime 1 (1 to 1) 400 (400 to 400)"
        ).split()
    )
    bench_inference.report({("vgg16", 8, 2): runs})
    text = capsys.readouterr().out
    assert "geometric mean over 1 nets, batch 8, 2 thread(s): opencv 3, openvino 2, onnxruntime 1\n" in text
    assert "held              3 (bar 1.5)  OpenCV's time / pycaffe's, each net" in text


def test_what_several_runs_measured_is_reported_together(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_inference, "RESULTS", tmp_path / "inference.json")
    monkeypatch.setattr("sys.argv", ["bench_inference.py", "--report"])
    with pytest.raises(SystemExit, match=r"No results in .*: run bench_inference"):
        bench_inference.main()
    for net, times in (("vgg16", 2), ("lenet", 8)):
        runs = [process(1, opencv=times, onnxruntime=1, openvino=1)]
        bench_inference.write_results({(net, 1, 2): runs})
    bench_inference.main()
    assert "geometric mean over 2 nets, batch 1, 2 thread(s): opencv 4, " in capsys.readouterr().out


def test_the_plot_has_a_chart_for_each_batch(tmp_path: pathlib.Path) -> None:
    import matplotlib.image

    runs = [process(1, opencv=2, onnxruntime=1, openvino=1.5), process(1, opencv=3, onnxruntime=1, openvino=1)]
    extents = []
    for batches in ((1,), (1, 8)):
        plot.draw({(net, b, 2): runs for net in NETS for b in batches}, tmp_path / "docs" / "out.png")
        extents.append(matplotlib.image.imread(str(tmp_path / "docs" / "out.png")).shape[:2])
    assert extents[1][0] == 2 * extents[0][0]
    assert extents[1][1] >= 1000
    assert plot.relative_speed(runs[1], "pycaffe") == 3
    with pytest.raises(SystemExit, match="No results with two threads"):
        plot.draw({("vgg16", 1, 1): runs}, tmp_path / "out.png")
