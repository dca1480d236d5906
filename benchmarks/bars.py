"""The bars of inference speed: which figure each is about, and whether the medians hold it.

Input is what bench_inference.py collects: by (net, batch, threads) the results of one_case.py, one for each process.
A figure is the median over processes; a process's own figure is the median over its rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from measure import geometric_mean, ratio, verdict

Case = tuple[str, int, int]  # net, batch, threads
Cases = Mapping[Case, Sequence[Mapping[str, Any]]]

THREADS = 2
WITH_LRN = ("caffenet", "googlenet")
OF_PEAK = {"resnet50": 0.90, "caffenet": 0.70}


@dataclass(frozen=True)
class Bar:
    """One requirement: what it says, the measured figure, and how far it is kept (None: nothing was measured)."""

    what: str
    bar: float
    measured: float | None
    detail: str = ""

    @property
    def held(self) -> bool | None:
        return None if self.measured is None else self.measured >= self.bar

    def __str__(self) -> str:
        measured = "-" if self.measured is None else f"{self.measured:.3g}"
        return f"{verdict(self.held):12} {measured:>6} (bar {self.bar:g})  {self.what}{self.detail}"


def speed_ups(processes: Sequence[Mapping[str, Any]], peer: str) -> list[float]:
    """How many times as fast pycaffe is as a peer, by process."""
    return [ratio(p["seconds"][peer], p["seconds"]["pycaffe"]) for p in processes]


def fractions(processes: Sequence[Mapping[str, Any]]) -> list[float]:
    """The part of the machine's peak that pycaffe reaches, by process."""
    return [
        statistics.median(p["flops"] / s / peak for s, peak in zip(p["seconds"]["pycaffe"], p["peak"]))
        for p in processes
    ]


def bars(cases: Cases) -> list[Bar]:
    """Every bar, over the cases with two threads."""
    cases = {case: processes for case, processes in cases.items() if case[2] == THREADS}
    small = {case: processes for case, processes in cases.items() if case[1] in (1, 8)}
    with_lrn = {case: processes for case, processes in cases.items() if case[0] in WITH_LRN}
    found = [
        _least("OpenCV's time / pycaffe's, each net, batch 1 and 8", 1.5, _medians(small, "opencv")),
        _mean("OpenCV's time / pycaffe's, geometric mean, batch 1 and 8", 2.0, _medians(small, "opencv")),
        _least("onnxruntime's time / pycaffe's, each net", 0.97, _medians(cases, "onnxruntime")),
        _mean("onnxruntime's time / pycaffe's, geometric mean, LRN nets", 1.15, _medians(with_lrn, "onnxruntime")),
        _mean("OpenVINO's time / pycaffe's, geometric mean", 1.0, _medians(cases, "openvino")),
    ]
    for net, bar in OF_PEAK.items():
        processes = cases.get((net, 32, THREADS))
        measured = statistics.median(fractions(processes)) if processes else None
        found.append(Bar(f"{net} at batch 32, of the GEMM peak", bar, measured))
    return found


def _medians(cases: Cases, peer: str) -> dict[Case, float]:
    return {case: statistics.median(speed_ups(processes, peer)) for case, processes in cases.items()}


def _least(what: str, bar: float, medians: Mapping[Case, float]) -> Bar:
    return Bar(what, bar, min(medians.values(), default=None), _below(medians, bar))


def _mean(what: str, bar: float, medians: Mapping[Case, float]) -> Bar:
    return Bar(what, bar, geometric_mean(list(medians.values())) if medians else None, _below(medians, bar))


def _below(medians: Mapping[Case, float], bar: float) -> str:
    below = [f"{net} batch {batch}: {value:.3g}" for (net, batch, _), value in medians.items() if value < bar]
    return f"; below it: {', '.join(below)}" if below else ""
