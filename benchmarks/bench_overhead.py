"""What pycaffe's semantics cost: `net.blobs["data"].data[...] = x; net.forward()["prob"]` over the session's own run.

A forward is done once with an eye on onnxruntime: which sessions run, with which outputs and inputs. Then the whole and
those runs alone take turns, in several processes.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import onnxruntime
from measure import arguments, elapsed, in_turn, net_files, settle, spread, verdict
from peers import example

import caffe

PROCESSES = 5
SECONDS = 6.0
THREADS = 2
BARS = {"resnet50": ("part", 0.03), "lenet": ("milliseconds", 0.2)}
METHODS = ("run", "run_with_iobinding", "run_with_ort_values")


def main() -> None:
    options = arguments(__doc__)
    options.add_argument("--one", metavar="NET", help="measure this net in this process and print JSON")
    options.add_argument("--seconds", type=float)
    asked = options.parse_args()
    seconds = asked.seconds or (1.0 if asked.quick else SECONDS)
    if asked.one:
        print(json.dumps(measure(asked.one, seconds)))
        return
    for name, (unit, bar) in BARS.items():
        net_files(name)
        script = {name: [__file__, "--one", name, "--seconds", str(seconds)]}
        runs = in_turn(script, 1 if asked.quick else PROCESSES)[name]
        more = [run["more"] * 1e3 for run in runs]
        parts = [run["more"] / run["session"] for run in runs]
        held = verdict(statistics.median(parts if unit == "part" else more) <= bar)
        limit = f"{bar:.0%}" if unit == "part" else f"{bar} ms"
        print(
            f"{name:10} session {spread([run['session'] * 1e3 for run in runs])} ms, "
            f"the whole {spread(more)} ms more, {spread([100 * part for part in parts])} %   {held} (bar {limit})"
        )


def measure(name: str, seconds: float) -> dict[str, float]:
    """Median seconds of the session's runs, and by how much the whole takes longer."""
    prototxt, weights = net_files(name)
    net = caffe.Net(str(prototxt), caffe.TEST, weights=str(weights), threads=THREADS)
    x = example(net.blobs["data"].shape)

    def whole() -> None:
        net.blobs["data"].data[...] = x
        net.forward()["prob"]

    for _ in range(4):
        whole()
    alone = recorded(whole)
    settle()
    session: list[float] = []
    difference: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(session) < 5:
        order = [whole, alone] if len(session) % 2 else [alone, whole]
        times = {run: elapsed(run) for run in order}
        session.append(times[alone])
        difference.append(times[whole] - times[alone])
    return {"session": statistics.median(session), "more": statistics.median(difference)}


def recorded(whole: Callable[[], Any]) -> Callable[[], None]:
    """The runs of onnxruntime inside `whole`, as a function that does them alone, on inputs of their own."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    originals = {name: getattr(onnxruntime.InferenceSession, name) for name in METHODS}

    def watch(original: Any) -> Any:
        def method(self: Any, *positional: Any, **named: Any) -> Any:
            calls.append((original.__get__(self), positional, named))
            return original(self, *positional, **named)

        return method

    for name, original in originals.items():
        setattr(onnxruntime.InferenceSession, name, watch(original))
    try:
        whole()
    finally:
        for name, original in originals.items():
            setattr(onnxruntime.InferenceSession, name, original)
    if not calls:
        raise RuntimeError("The forward ran no session of onnxruntime.")

    def alone() -> None:
        for method, positional, named in calls:
            method(*positional, **named)

    return alone


if __name__ == "__main__":
    main()
