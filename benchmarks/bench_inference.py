"""Forward passes of pycaffe against OpenCV 4's dnn, OpenVINO and raw onnxruntime, float32, on the CPU.

pycaffe's time is the whole of `net.blobs["data"].data[...] = x; net.forward()["prob"]`. A process measures one net at
one batch with one number of threads, all peers in turn, and the machine's peak (gemm_peak.py) with them; there are
several such processes for each, and all figures are medians over processes of medians over rounds, with their spread.
A process ends before the next begins, which bounds memory. All of it takes hours; the bars need `--threads 2`.

    bench_inference.py [--nets caffenet,vgg16] [--batches 1,8] [--threads 2] [--processes 5] [--quick]
    bench_inference.py --report

Results go to files/inference.json beside this script, for plot.py; a run replaces the cases that it measured, and
`--report` prints all that are there, so that nets may be measured in several runs.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
from typing import Any

from bars import Case, bars, fractions, speed_ups
from measure import FILES, NETS, arguments, geometric_mean, net_files, run_process, spread, straightforward_file

RESULTS = FILES / "inference.json"
HERE = pathlib.Path(__file__).parent
PEERS = ("opencv", "openvino", "onnxruntime")
QUICK_NETS = ("caffenet", "googlenet", "squeezenet_v1_1", "resnet50")
HEAD = f"{'net':16} batch threads  pycaffe ms {'':16}  times as fast as ...   of peak"

Cases = dict[Case, list[dict[str, Any]]]


def main() -> None:
    options = parse()
    if options.report:
        cases = read_results()
        if not cases:
            raise SystemExit(f"No results in {RESULTS}: run bench_inference.py first.")
        print(HEAD)
        for case, processes in cases.items():
            print(row(case, processes))
        report(cases)
    else:
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Runs the processes of all cases that were asked for."""
    cases: Cases = {}
    for name in options.nets:
        net_files(name)
        straightforward_file(name)
    for case in [(n, b, t) for n in options.nets for b in options.batches for t in options.threads]:
        cases[case] = []
    print(HEAD)
    for number in range(options.processes):  # whole rounds of all cases: a slow hour is nobody's alone
        for (name, batch, threads), processes in cases.items():
            command = [str(HERE / "one_case.py"), name, str(batch), str(threads), str(options.seconds)]
            processes.append(run_process(command))
            write_results(cases)
            if number == options.processes - 1:
                print(row((name, batch, threads), processes), flush=True)
    report(cases)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = arguments(__doc__)
    parser.add_argument("--nets", type=lambda s: s.split(","), help=f"of {','.join(NETS)}")
    parser.add_argument("--batches", type=integers)
    parser.add_argument("--threads", type=integers)
    parser.add_argument("--processes", type=int)
    parser.add_argument("--seconds", type=float, help="about how long a process measures")
    parser.add_argument("--report", action="store_true", help="measure nothing, print what earlier runs measured")
    options = parser.parse_args()
    quick = options.quick
    options.nets = options.nets or list(QUICK_NETS if quick else NETS)
    options.batches = options.batches or ([1] if quick else [1, 8, 32])
    options.threads = options.threads or ([2] if quick else [1, 2])
    options.processes = options.processes or (1 if quick else 5)
    options.seconds = options.seconds or (1.0 if quick else 15.0)
    return options


def integers(text: str) -> list[int]:
    """`1,8` as numbers."""
    return [int(part) for part in text.split(",")]


def row(case: Case, processes: list[dict[str, Any]]) -> str:
    """A line of the table."""
    name, batch, threads = case
    mine = [statistics.median(p["seconds"]["pycaffe"]) * 1e3 for p in processes]
    against = ", ".join(f"{peer} {spread(speed_ups(processes, peer))}" for peer in PEERS)
    return f"{name:16} {batch:5} {threads:7}  {spread(mine):27}  {against}  {spread(fractions(processes))}"


def report(cases: Cases) -> None:
    """Geometric means, the largest difference, memory, and the bars."""
    print()
    for batch, threads in sorted({case[1:] for case in cases}):
        chosen = [processes for case, processes in cases.items() if case[1:] == (batch, threads)]
        means = {
            peer: geometric_mean([statistics.median(speed_ups(processes, peer)) for processes in chosen])
            for peer in PEERS
        }
        told = ", ".join(f"{peer} {mean:.3g}" for peer, mean in means.items())
        print(f"geometric mean over {len(chosen)} nets, batch {batch}, {threads} thread(s): {told}")
    runs = [process for processes in cases.values() for process in processes]
    differences = [difference for run in runs for difference in run["difference"].values()]
    print(f"largest difference between pycaffe and a peer: {max(differences):.1e}")
    print(f"most memory of a process, all peers in it: {max(run['memory'] for run in runs) / 1e9:.1f} GB")
    peaks = [peak / 1e9 for (_, _, threads), ps in cases.items() for p in ps for peak in p["peak"] if threads == 2]
    if peaks:
        print(f"float32 GEMM peak, 2 threads: {spread(peaks)} GFLOP/s")
    print("\nBars (float32, 2 threads):")
    for bar in bars(cases):
        print(f"  {bar}")


def write_results(cases: Cases) -> None:
    """Merges the cases into the results file."""
    measured = {case: processes for case, processes in cases.items() if processes}
    kept = {case: runs for case, runs in read_results().items() if case not in measured}
    rows = [
        {"net": net, "batch": batch, "threads": threads, "processes": processes}
        for (net, batch, threads), processes in sorted({**kept, **measured}.items())
    ]
    RESULTS.write_text(json.dumps({"cases": rows}, indent=1))


def read_results() -> Cases:
    """What earlier runs wrote; nothing where there were none."""
    if not RESULTS.exists():
        return {}
    rows = json.loads(RESULTS.read_text())["cases"]
    return {(row["net"], row["batch"], row["threads"]): row["processes"] for row in rows}


if __name__ == "__main__":
    main()
