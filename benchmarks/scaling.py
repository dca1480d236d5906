"""Training on 2 to 256 workers: simulated with what a step costs here, checked here, and beside published figures.

    scaling.py [--section costs,check,tables,stragglers,published] [--processes 2] [--quick]

`costs` measures this machine and writes files/scaling.json, which the rest begins from. `check` trains with
`pycaffe.cluster.train` on this machine, and prints what the simulation says of the same runs. `tables` prints images a
second, efficiency and bytes by number of workers, and draws docs/scaling.png. Every figure in docs/scaling.md is
printed here.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import multiprocessing
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from cluster_simulation import Bucket, Cluster, Compression, Outcome, Straggling, Workload, simulate
from measure import FILES, arguments
from scaling_costs import BATCHES, Costs, measure_costs, steps_at_once, training_form, workload
from simulated_work import MessageCosts

RESULTS = FILES / "scaling.json"
CHART = pathlib.Path(__file__).parent.parent / "docs" / "scaling.png"
SECTIONS = ("costs", "check", "tables", "stragglers", "published")
SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
GIGABIT = 1e9 / 8 * 0.94  # bytes a second that TCP/IP leaves of a gigabit
QUIET, QUIET_GPU = Straggling(spread=0.05), Straggling(spread=0.02)
STALENESS = 2
SERVERS = (1, 2, 4, 8, 16)  # of which a table has those that `sync` is fastest with
TITLES = {"lenet": "LeNet", "googlenet": "GoogLeNet", "caffenet": "CaffeNet", "vgg16": "VGG-16"}

# Milliseconds of forward and backward of 16 images on a Pascal Titan X with cuDNN 5.1, from
# github.com/jcjohnson/cnn-benchmarks (AlexNet for CaffeNet; nobody measured LeNet).
TITAN_X = {"googlenet": 39.14, "caffenet": 14.56, "vgg16": 128.62}

Job = tuple[Workload, Cluster, int, dict[str, Any]]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--section", type=lambda s: s.split(","), default=list(SECTIONS), help=",".join(SECTIONS))
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores")
    if "costs" in options.section:
        RESULTS.write_text(json.dumps(measure_costs(options.quick), indent=1))
    costs = json.loads(RESULTS.read_text())
    for section in options.section:
        print(f"\n## {section}\n", flush=True)
        globals()[f"print_{section}"](costs, options)


# -- what was measured


def print_costs(costs: Costs, options: argparse.Namespace) -> None:
    """A step of each net here, and what travels."""
    rows = [
        (TITLES[name], net["batch"], net["measured batch"], f"{net['bytes'] / 1e6:.2f}", f"{net['seconds']:.3f}",
         f"{net['update']:.4f}", f"{net['bytes'] * 2 / net['seconds'] / 1e6:.3g}")
        for name, net in costs["nets"].items()
    ]  # fmt: skip
    table(
        (
            "net",
            "batch",
            "measured at",
            "MB of parameters",
            "seconds of computing",
            "of updating",
            "MB/s pushed and pulled",
        ),
        rows,
    )
    print(f"\nupdate (SGD with momentum): {costs['update'] * 1e9:.2f} s/GB of parameters")
    print(f"packing a gradient: fp16 {costs['fp16'] * 1e9:.2f} s/GB, topk:0.01 {costs['topk:0.01'] * 1e9:.2f} s/GB")
    print("\nprocessor seconds of a gradient pushed and values pulled, in milliseconds\n")
    rows = [(f"{size / 1e6:.3f}", *(f"{seconds * 1e3:.2f}" for seconds in spent)) for size, *spent in costs["messages"]]
    table(("MB", "in the worker", "in the server", "in other processes"), rows)
    ring = costs["ring"]
    print(
        f"\nall-reduce by two processes: a call {ring['seconds'] * 1e3:.2f} ms, of which {ring['call'] * 1e3:.2f} of a "
        f"processor each, and {ring['byte'] * 1e9:.2f} s/GB"
    )


def compressions(costs: Costs) -> dict[str, Compression]:
    """By name; processors pack, beside GPUs as well."""
    return {
        "none": Compression(),
        "fp16": Compression("fp16", 0.5, 0.5, costs["fp16"]),
        "topk:0.01": Compression("topk:0.01", 0.02, 1.0, costs["topk:0.01"]),  # an index and a value each
    }


# -- tables


def print_tables(costs: Costs, options: argparse.Namespace) -> None:
    """Images a second and efficiency by number of workers."""
    sizes = SIZES[:4] if options.quick else SIZES
    charts = []
    for title, nets, cluster in scenarios(costs):
        for net, seconds in nets.items():
            load = workload(net, costs, seconds)
            servers = fastest_servers(load, cluster, sizes, options.processes)
            columns = configurations(compressions(costs))
            jobs = [
                (workload(net, costs, seconds, settings["mode"]), cluster, size, {**settings, "servers": servers[size]})
                for settings in columns.values() for size in sizes
            ]  # fmt: skip
            outcomes = iter(in_processes(jobs, options.processes))
            by_name = {name: {size: next(outcomes) for size in sizes} for name in columns}
            print(f"\n### {TITLES[load.name]}, {title}: batch {load.batch}, {load.seconds * 1e3:.0f} ms a step\n")
            print_outcomes(by_name, servers)
            charts.append((f"{TITLES[load.name]}\n{title}", by_name))
    if not options.quick:
        draw(charts, CHART)


def scenarios(costs: Costs) -> list[tuple[str, dict[str, float | None], Cluster]]:
    """Machines like this one, and GPUs, with the networks that people have; a step's seconds, None for those here.

    Beside a GPU, all that pycaffe does on processors takes as long as here, but there are enough of them.
    """
    gpus = {name: seconds / 1e3 * BATCHES[name][0] / 16 for name, seconds in TITAN_X.items()}
    cores = os.cpu_count() or 1
    gpu = Cluster(
        10 * GIGABIT, message_seconds=0.0, update_seconds_per_byte=costs["update"], messages=messages(costs),
        trees=True, straggling=QUIET_GPU,
    )  # fmt: skip
    here = replace(
        gpu, ring=(costs["ring"]["call"], costs["ring"]["byte"]), trees=False, cores=cores, threads=cores,
        straggling=QUIET,
    )  # fmt: skip
    return [
        ("machines like this one, 10 Gbit/s", dict.fromkeys(BATCHES), here),
        ("a Titan X each, 10 Gbit/s", gpus, gpu),
        ("a Titan X each, 100 Gbit/s", gpus, replace(gpu, latency=5e-6, bandwidth=100 * GIGABIT)),
    ]


def fastest_servers(load: Workload, cluster: Cluster, sizes: Sequence[int], processes: int) -> dict[int, int]:
    """With how many servers `sync` is fastest, by number of workers."""
    choices = SERVERS if cluster.cores is None else SERVERS[::2]  # where cores are shared it takes long to simulate
    tried = [(size, servers) for size in sizes for servers in choices if servers <= size]
    jobs = [(load, cluster, size, {"servers": servers, "steps": 3}) for size, servers in tried]
    fastest: dict[int, int] = {}
    best: dict[int, float] = defaultdict(float)
    for (size, servers), outcome in zip(tried, in_processes(jobs, processes)):
        if outcome.images_per_second > 1.01 * best[size]:  # more servers are worth it where it is seen
            fastest[size], best[size] = servers, outcome.images_per_second
    return fastest


def configurations(packings: dict[str, Compression]) -> dict[str, dict[str, Any]]:
    """Settings by name."""
    modes: dict[str, dict[str, Any]] = {
        "sync": {"mode": "sync"},
        f"ssp ({STALENESS})": {"mode": "ssp", "staleness": STALENESS},
        "async": {"mode": "async"},
    }
    found = {
        (name if packing == "none" else f"{name} {packing}"): {**mode, "compression": packings[packing]}
        for name, mode in modes.items()
        for packing in packings
    }
    return {**found, "allreduce": {"mode": "allreduce"}}


def print_outcomes(by_name: dict[str, dict[int, Outcome]], servers: dict[int, int]) -> None:
    """Rows: configurations. Columns: workers, images a second (efficiency)."""
    sizes = tuple(servers)
    rows: list[tuple[Any, ...]] = [("servers", *servers.values(), "")]
    for name, outcomes in by_name.items():
        cells = [f"{outcomes[size].images_per_second:,.0f} ({outcomes[size].efficiency:.0%})" for size in sizes]
        rows.append((name, *cells, f"{max(outcome.bytes_per_step for outcome in outcomes.values()) / 1e6:.3g}"))
    table(("mode", *map(str, sizes), "MB a step"), rows)


def draw(charts: Iterable[tuple[str, dict[str, dict[int, Outcome]]]], target: pathlib.Path) -> None:
    """Efficiency by workers; a small chart for each net and cluster."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = list(charts)
    columns = 4
    figure, axes = pyplot.subplots(-(-len(panels) // columns), columns, figsize=(14, 9), sharey=True, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (title, by_name) in zip(axes.flat, panels):
        for name in ("sync", f"ssp ({STALENESS})", "async", "allreduce", "sync fp16", "sync topk:0.01"):
            outcomes = by_name[name]
            style = "--" if " fp16" in name or "topk" in name else "-"
            axis.plot(list(outcomes), [outcome.efficiency for outcome in outcomes.values()], style, label=name)
        axis.set_xscale("log", base=2)
        axis.set_ylim(0, 1.05)
        axis.set_title(title, fontsize=9)
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("efficiency")
    axes[0, 0].legend(fontsize=7)
    figure.supxlabel("workers")
    figure.tight_layout()
    target.parent.mkdir(exist_ok=True)
    figure.savefig(target, dpi=110)
    print(f"\n{target.name} drawn")


# -- stragglers


def print_stragglers(costs: Costs, options: argparse.Namespace) -> None:
    """Throughput over that of sync, where steps are slow at random and where one worker always is."""
    # Steps of 50 ms and next to no bytes: nothing but waiting is looked at.
    load = Workload("sleep", 1, (Bucket(1e4, 0.025, 0.025),))
    cases = {
        "each step 5 times as long with probability 0.2": Straggling(probability=0.2, factor=5),
        "one worker always 5 times as slow": Straggling(slow_workers=1, slow_factor=5),
    }
    modes = {"sync": {"mode": "sync"}, "ssp (4)": {"mode": "ssp", "staleness": 4}, "async": {"mode": "async"}}
    steps = 100 if options.quick else 1000
    rows = []
    for case, straggling in cases.items():
        for workers in (4, 16, 64):
            cluster = Cluster(10 * GIGABIT, straggling=straggling)
            rates = [
                simulate(load, cluster, workers, servers=2, steps=steps, **settings) for settings in modes.values()
            ]
            ratios = [f"{rate.images_per_second / rates[0].images_per_second:.2f}" for rate in rates[1:]]
            rows.append((case, workers, *ratios, rates[1].lead))
    table(("case", "workers", "ssp (4) / sync", "async / sync", "steps ahead in ssp"), rows)


# -- published figures

# Who, what, workers, published speed-up, how it is simulated here, and what of that is a guess. Images a second are of
# one GPU; where the publication gives none, the guess says so.
PUBLISHED: list[tuple[str, str, int, str, dict[str, Any], str]] = [
    ("FireCaffe (arXiv 1511.00175)", "GoogLeNet, 128 K20 (Cray), batch 1024 in all", 128, "47",
     {"mode": "tree", "net": "googlenet", "batch": 8, "rate": 46.0, "small": 0.6, "gigabits": 40},
     "46 images/s for a K20 at batch 32, 0.6 of that at batch 8; 40 Gbit/s for each GPU; sums in a tree"),
    ("FireCaffe", "the same", 128, "47",
     {"mode": "tree", "net": "googlenet", "batch": 8, "rate": 46.0, "small": 0.6, "gigabits": 40, "after": True},
     "the same, and that the tree begins once backward has ended"),
    ("Poseidon (arXiv 1706.03292)", "Inception-V3, 32 Titan X, batch 32 each", 32, "31.5",
     {"mode": "sync", "bytes": 27e6 * 4, "net": "googlenet", "batch": 32, "rate": 43.0, "gigabits": 40},
     "43 images/s for one GPU; 40 Gbit/s; bytes spread over the layers as GoogLeNet's"),
    ("GeePS (EuroSys 2016)", "16 K20C, batch 32 each", 16, "13",
     {"mode": "sync", "net": "googlenet", "batch": 32, "rate": 46.0, "gigabits": 10},
     "GoogLeNet; FireCaffe's rate for a K20; 10 of the 40 Gbit/s reached"),
    ("Caffe-MPI 2.0 (AICC 2017)", "GoogLeNet, 4 nodes of 4 P40, batch 128 each", 16, "14.25",
     {"mode": "allreduce", "net": "googlenet", "batch": 128, "rate": 5886 / 14.25, "gigabits": 56},
     "56 Gbit/s (RDMA)"),
    ("Caffe-MPI 2.0 (AICC 2017)", "ResNet, 4 nodes of 4 P40, batch 32 each", 16, "15.34",
     {"mode": "allreduce", "bytes": 25.6e6 * 4, "net": "googlenet", "batch": 32, "rate": 1372 / 15.34, "gigabits": 56},
     "ResNet-50; 56 Gbit/s (RDMA); bytes spread over the layers as GoogLeNet's"),
    ("ShmCaffe (ICDCS 2018)", "Inception-v1, 16 GPUs, one memory server", 16, "10.1",
     {"mode": "async", "net": "googlenet", "batch": 60, "rate": 16e3 / 39.14, "gigabits": 56, "servers": 1},
     "Titan X (Pascal); batch 60; 56 Gbit/s to one server; every step exchanges"),
]  # fmt: skip


def print_published(costs: Costs, options: argparse.Namespace) -> None:
    """Speed-ups over one GPU, published and simulated."""
    rows = []
    for who, what, workers, published, how, guess in PUBLISHED:
        base = workload(how["net"], costs, how["batch"] / (how["rate"] * how.get("small", 1.0)))
        larger = how.get("bytes", base.bytes) / base.bytes
        buckets = tuple(
            replace(bucket, bytes=bucket.bytes * larger, layers=tuple(size * larger for size in bucket.layers))
            for bucket in base.buckets
        )
        if how.get("after"):  # all layers travel together, when the last gradient is there
            sums = [sum(getattr(bucket, name) for bucket in buckets) for name in ("bytes", "forward", "backward")]
            buckets = (Bucket(*sums),)
        load = replace(base, batch=how["batch"], buckets=buckets)
        servers = how.get("servers", workers)
        cluster = Cluster(
            how["gigabits"] * GIGABIT, latency=10e-6, message_seconds=20e-6, update_seconds_per_byte=0.02e-9,
            servers_apart=servers == 1, straggling=QUIET_GPU,
        )  # fmt: skip
        outcome = simulate(load, cluster, workers, servers=servers, mode=how["mode"])
        speedup = outcome.images_per_second / how["rate"]
        rows.append((who, what, published, f"{speedup:.1f}", how["mode"], guess))
    table(("who", "what", "published", "simulated", "as", "taken as given or guessed"), rows)


# -- the check on this machine


# Net, batch, iterations, and what is run: mode, workers.
CHECKED: list[tuple[str, int, int, list[tuple[str, int]]]] = [
    ("lenet", 64, 200, [("sync", 1), ("sync", 2), ("sync", 4), ("ssp", 2), ("async", 4), ("allreduce", 2)]),
    ("caffenet", 4, 16, [("sync", 1), ("sync", 2), ("allreduce", 2)]),
]


def print_check(costs: Costs, options: argparse.Namespace) -> None:
    """Iterations a second of `pycaffe.cluster.train` here, measured and simulated."""
    cores = os.cpu_count() or 1
    rows = []
    for name, batch, iterations, runs in CHECKED:
        iterations = iterations // 8 if options.quick else iterations
        # A worker has its share of the cores for threads; where there are more, one each.
        steps = {threads: steps_at_once(name, batch, 1, threads) for threads in (1, cores)}
        crowding = steps_at_once(name, batch, cores, 1)[0] / steps[1][0]
        print(
            f"{TITLES[name]}, batch {batch}: a step and its update alone "
            + ", ".join(
                f"{1e3 * step:.1f} and {1e3 * update:.2f} ms ({n} threads)" for n, (step, update, *_) in steps.items()
            )
            + f"; {crowding:.2f} times that where all cores compute",
            flush=True,
        )
        for mode, workers in runs:
            measured = trained(name, batch, mode, workers, iterations)
            threads = max(1, cores // workers)
            step, update = steps[threads][:2]
            load = replace(workload(name, costs, step - update, mode), batch=batch)
            cluster = Cluster(
                math.inf, latency=(costs["ring"]["seconds"] - costs["ring"]["call"]) / 2, message_seconds=0.0,
                update_seconds_per_byte=update / load.bytes, messages=messages(costs),
                ring=(costs["ring"]["call"], costs["ring"]["byte"]), cores=cores, together=True, threads=threads,
                crowding=crowding,
            )  # fmt: skip
            staleness = STALENESS if mode == "ssp" else 0
            outcome = simulate(load, cluster, workers, mode=mode, staleness=staleness, steps=40)
            predicted = outcome.images_per_second / batch / workers
            rows.append((TITLES[name], batch, mode, workers, f"{measured:.1f}", f"{predicted:.1f}",
                         f"{measured / predicted:.2f}"))  # fmt: skip
    table(("net", "batch", "mode", "workers", "iterations/s", "simulated", "measured / simulated"), rows)


def messages(costs: Costs) -> MessageCosts:
    """As they were measured here."""
    return MessageCosts(tuple(map(tuple, costs["messages"])))


def trained(name: str, batch: int, mode: str, workers: int, iterations: int) -> float:
    """Iterations a second of the second half of a run, as its user sees it."""
    from pycaffe import cluster

    with tempfile.TemporaryDirectory() as folder:
        net = pathlib.Path(folder, "net.prototxt")
        net.write_text(str(training_form(name, batch)))
        solver = pathlib.Path(folder, "solver.prototxt")
        solver.write_text(
            f'net: "{net}" lr_policy: "fixed" base_lr: 1e-5 momentum: 0.9 random_seed: 1 display: 0 '
            f"max_iter: {iterations} snapshot_after_train: false"
        )
        times: dict[int, float] = {}
        staleness = STALENESS if mode == "ssp" else None
        cluster.train(
            str(solver), workers=workers, mode=mode, staleness=staleness,
            on_progress=lambda iteration, loss: times.setdefault(iteration, time.monotonic()),
        )  # fmt: skip
    reached = sorted(times)
    half = reached[len(reached) // 2]
    return (reached[-1] - half) / (times[reached[-1]] - times[half])


# -- printing, processes


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table in Markdown."""
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)


def in_processes(jobs: Sequence[Job], processes: int) -> list[Outcome]:
    """The outcomes of simulations, in their order; the long ones first."""
    order = sorted(range(len(jobs)), key=lambda at: -jobs[at][2])
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        found = dict(zip(order, pool.map(simulate_job, [jobs[at] for at in order], chunksize=1)))
    return [found[at] for at in range(len(jobs))]


def simulate_job(job: Job) -> Outcome:
    """One simulation; fewer steps where there are many workers, who average over themselves."""
    load, cluster, workers, settings = job
    gc.disable()  # nothing here refers to itself but the run, which ends with this
    steps = 16 if workers <= 16 else 6 if workers <= 64 else 4
    outcome = simulate(load, cluster, workers, **{"steps": steps, **settings})
    gc.enable()
    gc.collect()
    return outcome


if __name__ == "__main__":
    sys.exit(main())
