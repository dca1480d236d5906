"""What a step costs on this machine, for the simulation: computing, updating, packing, messages, all-reduce.

scaling.py runs it; by itself it prints the figures as JSON.

    scaling_costs.py [--step NET,BATCH] [--quick]

Messages are measured in runs of `pycaffe.cluster.train` with nets that compute next to nothing (one InnerProduct, batch
1): the processor time of workers, server and all other processes, less that of computing and updating. None of it is
taken from a run that the simulation is compared with.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from measure import SEED, arguments, net_param
from simulated_work import Bucket, Workload

import caffe
from pycaffe.cluster.protocol.compression import GradientEncoder, parse_compression
from pycaffe.cluster.training.exchange import BUCKETS, SMALLEST
from pycaffe.proto.schema import NetParameter

__all__ = ["Costs", "measure_costs", "steps_at_once", "training_form", "workload"]

# The batch that a net is trained with, and the one that is measured here: VGG-16 at 64 takes 10 GB.
BATCHES = {"lenet": (64, 64), "googlenet": (32, 4), "caffenet": (256, 16), "vgg16": (64, 2)}
# Outputs and inputs of the nets that messages are measured with, and steps: 4 kB, 1.6 MB, 16 MB and 128 MB.
SIZES_OF_MESSAGES = ((8, 128, 1500), (500, 800, 400), (2000, 2000, 80), (4000, 8000, 24))
USUAL_SECONDS = 3.0
MESSAGE_ROUNDS = 3
SECONDS, MOST_ROUNDS = 1.0, 100  # of measuring one thing, where a round is short
Costs = dict[str, Any]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--step", help="of that net at that batch, once a line comes in: seconds of a step, an update")
    options = parser.parse_args()
    if options.step:
        name, batch = options.step.split(",")
        _tell_step(_make_solver(name, int(batch)))
        return
    print(json.dumps(measure_costs(options.quick), indent=1))


def measure_costs(quick: bool) -> Costs:
    """Seconds and bytes, by name."""
    nets = {name: _net_costs(name, 1 if quick else 4) for name in BATCHES}
    largest = max(nets.values(), key=lambda net: net["bytes"])
    return {
        "nets": nets,
        "update": largest["update"] / largest["bytes"],
        **_packing_costs(),
        "messages": _message_costs(quick),
        "ring": _ring_costs(),
    }


def workload(name: str, costs: Costs, seconds: float | None = None, mode: str = "sync") -> Workload:
    """A net's workload, with the seconds of a step that were measured here, or others."""
    net = costs["nets"][name]
    taken = net["seconds"] if seconds is None else seconds
    groups = [[layer] for layer in net["layers"]] if mode == "allreduce" else _travelling_together(net["layers"])
    # Backward computes two products for each of forward: by the data, and by the weights.
    buckets = []
    for group in groups:
        size, part, blobs = (sum(values) for values in zip(*group))
        layers = tuple(layer[0] for layer in group)
        buckets.append(Bucket(size, taken * part / 3, taken * part * 2 / 3, blobs, layers))
    return Workload(name, net["batch"], tuple(buckets))


def _travelling_together(layers: Sequence[Sequence[float]]) -> list[list[Sequence[float]]]:
    """Layers in groups as a worker pushes them (cluster/training/exchange.py), bottom first."""
    smallest = max(4 * SMALLEST, sum(layer[0] for layer in layers) / BUCKETS)
    groups: list[list[Sequence[float]]] = []
    size = 0.0
    for layer in reversed(layers):
        if not groups or size >= smallest:
            groups.insert(0, [])
            size = 0.0
        groups[0].insert(0, layer)
        size += layer[0]
    return groups


def training_form(name: str, batch: int) -> Any:
    """The NetParameter of a net in training, on data that cost nothing to read."""
    from importlib import import_module

    module = import_module(f"nets.{name}")
    if hasattr(module, f"{name}_train"):
        return getattr(module, f"{name}_train")(batch)
    net = net_param(name, batch)
    shape = list(net.layer[0].input_param.shape[0].dim)
    data = NetParameter().layer.add(name="data", type="DummyData", top=["data", "label"])
    for extents in (shape, shape[:1]):
        data.dummy_data_param.shape.add(dim=extents)
    net.layer[0].CopyFrom(data)
    last = net.layer[-1]
    last.type = "SoftmaxWithLoss"
    last.bottom.append("label")
    return net


def _bare(outputs: int, inputs: int) -> str:
    """A net with so many weights and little else."""
    data = f"dummy_data_param {{ shape {{ dim: 1 dim: {inputs} }} }}"
    product = f"inner_product_param {{ num_output: {outputs} bias_term: false }}"
    return (
        f'layer {{ name: "data" type: "DummyData" top: "data" {data} }} '
        f'layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" {product} }} '
        'layer { name: "sum" type: "Reduction" bottom: "ip" top: "sum" loss_weight: 1 }'
    )


def _write_solver(name: str, batch: int, folder: str, iterations: int = 1) -> str:
    """Writes the training form of a net, or "bare:OUTPUTS:INPUTS", and its solver, whose path it returns."""
    net = pathlib.Path(folder, "net.prototxt")
    bare = name.startswith("bare:")
    net.write_text(_bare(*map(int, name.split(":")[1:])) if bare else str(training_form(name, batch)))
    solver = pathlib.Path(folder, "solver.prototxt")
    solver.write_text(
        f'net: "{net}" lr_policy: "fixed" base_lr: 1e-5 momentum: 0.9 weight_decay: 0.0005 random_seed: {SEED} '
        f"max_iter: {iterations} display: 0 snapshot_after_train: false"
    )
    return str(solver)


def _make_solver(name: str, batch: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        return caffe.SGDSolver(_write_solver(name, batch, folder))


def _net_costs(name: str, rounds: int) -> dict[str, Any]:
    """Bytes, seconds of computing a step at the usual batch and of an update; its layers."""
    usual, batch = BATCHES[name]
    solver = _make_solver(name, batch)
    step = _fastest(_step(solver), rounds)
    update = _fastest(solver.apply_update, rounds)
    layers = _layers(solver.net)
    return {
        "batch": usual,
        "measured batch": batch,
        "seconds": (step - update) * usual / batch,  # an update takes the same at any batch
        "update": update,
        "bytes": sum(layer[0] for layer in layers),
        "layers": layers,
    }


def _step(solver: Any) -> Callable[[], Any]:
    """What takes one step, warm."""
    generator = np.random.default_rng(SEED)
    solver.net.blobs["data"].data[...] = generator.standard_normal(solver.net.blobs["data"].shape, np.float32)
    solver.step(2)
    return lambda: solver.step(1)


def _layers(net: Any) -> list[tuple[float, float, int]]:
    """Of each layer: bytes, its part of all multiplications, and how many blobs it has."""
    layers = []
    for name, blobs in net.params.items():
        top = net.blobs[net.top_names[name][0]].shape
        places = int(np.prod(top[2:])) if len(blobs[0].shape) == 4 else 1
        work = float(blobs[0].count * places * top[0])
        layers.append((4.0 * sum(blob.count for blob in blobs), work, len(blobs)))
    work_of_all = sum(layer[1] for layer in layers)
    return [(size, work / work_of_all, blobs) for size, work, blobs in layers]


def steps_at_once(name: str, batch: int, processes: int, threads: int) -> tuple[float, ...]:
    """Seconds of a step and of an update, then processor seconds, usual ones of processes that compute at once."""
    command = [sys.executable, __file__, "--step", f"{name},{batch}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    running = [
        subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for process in running:
        process.stdout.readline()
    told = []
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in running:
        answer, _ = process.communicate()
        told.append([float(value) for value in answer.split()])
    return tuple(sum(values) / len(told) for values in zip(*told))


def _tell_step(solver: Any) -> None:
    """Steps and updates in turn: what slows the machine for a while slows both."""
    actions = (_step(solver), solver.apply_update)
    print("ready", flush=True)
    sys.stdin.readline()
    taken: list[list[float]] = []
    begin = time.perf_counter()
    while len(taken) < 5 or time.perf_counter() - begin < 2 * USUAL_SECONDS:
        clocks = [(time.perf_counter(), time.process_time())]
        for action in actions:
            action()
            clocks.append((time.perf_counter(), time.process_time()))
        taken.append(np.diff(clocks, axis=0).T.reshape(-1).tolist())
    print(*map(statistics.median, zip(*taken)))


def _packing_costs() -> dict[str, float]:
    """Seconds for each byte of a gradient that is packed."""
    costs = {}
    gradient = np.random.default_rng(SEED).standard_normal(4_000_000, np.float32)
    for compression in ("fp16", "topk:0.01"):
        encoder = GradientEncoder(parse_compression(compression))
        costs[compression] = _fastest(lambda encoder=encoder: encoder.encode(0, gradient), 5) / gradient.nbytes
    return costs


def _message_costs(quick: bool) -> list[tuple[float, float, float, float]]:
    """Points of MessageCosts: two workers and a server train nets of several sizes. Medians of several runs."""
    points = []
    for outputs, inputs, iterations in SIZES_OF_MESSAGES[:3] if quick else SIZES_OF_MESSAGES:
        rounds = [_message_cost(f"bare:{outputs}:{inputs}", iterations) for _ in range(1 if quick else MESSAGE_ROUNDS)]
        point = [statistics.median(parts) for parts in zip(*rounds)]
        if min(point) < 0:
            raise SystemExit(f"{outputs}x{inputs}: messages cost {point} s? Too much else runs on this machine.")
        points.append((4.0 * outputs * inputs, *point))
    return points


def _message_cost(name: str, iterations: int) -> tuple[float, float, float]:
    """Processor seconds of a gradient pushed and values pulled: in the worker, in the server, in other processes."""
    *_, step, update = steps_at_once(name, 1, 2, 1)
    with tempfile.TemporaryDirectory() as folder:
        worker, server, rest = _processor_seconds(_write_solver(name, 1, folder, iterations))
    # Each step has two messages of each worker to the only server, which updates once.
    return worker / 2 - (step - update), (server - update) / 2, rest / 2


def _processor_seconds(solver: str) -> tuple[float, float, float]:
    """Of a step of two workers and a server: in the workers, in the server, and in all other processes of the run."""
    from pycaffe import cluster

    seen: list[tuple[int, dict[str, float]]] = []

    def note(iteration: int, loss: float) -> None:
        if not seen or time.monotonic() - noted[-1] >= 1:
            seen.append((iteration, _spent()))
            noted.append(time.monotonic())

    noted: list[float] = []
    cluster.train(solver, workers=2, on_progress=note)
    # The first has the loading in it.
    (begin, before), (end, after) = seen[1], seen[-1]
    worker, server, rest = ((after[role] - before[role]) / (end - begin) for role in ("Worker", "Server", ""))
    return worker, server, rest


def _spent() -> dict[str, float]:
    """Processor seconds so far of this process and those below it, by what they are."""
    parents, spent = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            title = (entry / "cmdline").read_text()
        except OSError:
            continue  # it has just ended
        role = next((role for role in ("Worker", "Server") if title.startswith(f"ray::{role}Actor")), "")
        parents[int(entry.name)] = int(fields[1])
        spent[int(entry.name)] = (role, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    found = {"Worker": 0.0, "Server": 0.0, "": 0.0}
    for pid, (role, seconds) in spent.items():
        above = pid
        while above not in (0, os.getpid()):
            above = parents.get(above, 0)
        if above:
            found[role] += seconds
    return found


def _ring_costs() -> dict[str, float]:
    """All-reduce by two processes here: seconds of a call, of processor for each and for each byte."""
    import torch.multiprocessing

    with tempfile.TemporaryDirectory() as folder:
        context = torch.multiprocessing.get_context("spawn")
        told = context.Queue()
        processes = [context.Process(target=_reduce, args=(rank, folder, told)) for rank in range(2)]
        for process in processes:
            process.start()
        costs = [told.get() for _ in processes]
        for process in processes:
            process.join()
    return {name: sum(cost[name] for cost in costs) / 2 for name in costs[0]}


def _reduce(rank: int, folder: str, told: Any) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    taken = {}
    for name, size, calls in (("small", 64, 2000), ("large", 4_000_000, 50)):
        tensor = torch.zeros(size)
        torch.distributed.all_reduce(tensor)
        begin, busy = time.perf_counter(), time.process_time()
        for _ in range(calls):
            torch.distributed.all_reduce(tensor)
        taken[name] = (time.perf_counter() - begin) / calls, (time.process_time() - busy) / calls
    torch.distributed.destroy_process_group()
    (wall, call), (_, large) = taken["small"], taken["large"]
    told.put({"seconds": wall, "call": call, "byte": (large - call) / (4 * 4_000_000)})


def _fastest(action: Callable[[], Any], rounds: int) -> float:
    """What it takes undisturbed; rounds that are short are more."""
    taken: list[float] = []
    while len(taken) < rounds or (sum(taken) < SECONDS and len(taken) < MOST_ROUNDS):
        begin = time.perf_counter()
        action()
        taken.append(time.perf_counter() - begin)
    return min(taken)


if __name__ == "__main__":
    main()
