"""What a step costs on this machine, for the simulation: computing, updating, packing, and a message between actors.

scaling.py runs it; by itself it prints the figures as JSON.

    scaling_costs.py [--step NET,BATCH] [--quick]
"""

from __future__ import annotations

import json
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cluster_simulation import Bucket, Workload
from measure import SEED, arguments, net_param

import caffe
from pycaffe.cluster.protocol.compression import GradientEncoder, parse_compression
from pycaffe.proto.schema import NetParameter

__all__ = ["Costs", "measure_costs", "training_form", "workload"]

# The batch that a net is trained with, and the one that is measured here: VGG-16 at 64 takes 10 GB.
BATCHES = {"lenet": (64, 64), "googlenet": (32, 4), "caffenet": (256, 16), "vgg16": (64, 2)}
PARTS = 8  # a bucket has at least this part of a net's computing, or of its bytes
SECONDS, MOST_ROUNDS = 1.0, 100  # of measuring one thing, where a round is short
Costs = dict[str, Any]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--step", help="print the seconds of a step of that net at that batch, and nothing else")
    options = parser.parse_args()
    if options.step:
        name, batch = options.step.split(",")
        print(_fastest(_step(_make_solver(name, int(batch))), 10))
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
        **_message_costs(20 if quick else 100),
    }


def workload(name: str, costs: Costs, seconds: float | None = None) -> Workload:
    """A net's workload, with the seconds of a step that were measured here, or others."""
    net = costs["nets"][name]
    taken = net["seconds"] if seconds is None else seconds
    # Backward computes two products for each of forward: by the data, and by the weights.
    buckets = [Bucket(size, taken * part / 3, taken * part * 2 / 3) for size, part in net["buckets"]]
    return Workload(name, net["batch"], tuple(buckets))


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


def _make_solver(name: str, batch: int) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        net = pathlib.Path(folder, "net.prototxt")
        net.write_text(str(training_form(name, batch)))
        solver = pathlib.Path(folder, "solver.prototxt")
        solver.write_text(
            f'net: "{net}" lr_policy: "fixed" base_lr: 1e-5 momentum: 0.9 weight_decay: 0.0005 random_seed: {SEED} '
            "display: 0 snapshot_after_train: false"
        )
        return caffe.SGDSolver(str(solver))


def _net_costs(name: str, rounds: int) -> dict[str, Any]:
    """Bytes, seconds of computing a step at the usual batch and of an update; of each bucket bytes and part of it."""
    usual, batch = BATCHES[name]
    solver = _make_solver(name, batch)
    step = _fastest(_step(solver), rounds)
    update = _fastest(solver.apply_update, rounds)
    buckets = _buckets(solver.net)
    return {
        "batch": usual,
        "measured batch": batch,
        "seconds": (step - update) * usual / batch,  # an update takes the same at any batch
        "update": update,
        "bytes": sum(size for size, _ in buckets),
        "buckets": buckets,
    }


def _step(solver: Any) -> Callable[[], Any]:
    """What takes one step, warm."""
    generator = np.random.default_rng(SEED)
    solver.net.blobs["data"].data[...] = generator.standard_normal(solver.net.blobs["data"].shape, np.float32)
    solver.step(2)
    return lambda: solver.step(1)


def _buckets(net: Any) -> list[tuple[float, float]]:
    """Of layers that follow each other: bytes, and their part of all multiplications."""
    layers = []
    for name, blobs in net.params.items():
        top = net.blobs[net.top_names[name][0]].shape
        places = int(np.prod(top[2:])) if len(blobs[0].shape) == 4 else 1
        layers.append((4.0 * sum(blob.count for blob in blobs), float(blobs[0].count * places * top[0])))
    bytes_of_all, work_of_all = (sum(values) for values in zip(*layers))
    buckets: list[tuple[float, float]] = []
    size = work = 0.0
    for layer_size, layer_work in layers:
        size, work = size + layer_size, work + layer_work
        if size >= bytes_of_all / PARTS or work >= work_of_all / PARTS:
            buckets.append((size, work / work_of_all))
            size = work = 0.0
    return [*buckets, (size, work / work_of_all)] if size else buckets


def _packing_costs() -> dict[str, float]:
    """Seconds for each byte of a gradient that is packed."""
    costs = {}
    gradient = np.random.default_rng(SEED).standard_normal(4_000_000, np.float32)
    for compression in ("fp16", "topk:0.01"):
        encoder = GradientEncoder(parse_compression(compression))
        costs[compression] = _fastest(lambda encoder=encoder: encoder.encode(0, gradient), 5) / gradient.nbytes
    return costs


def _message_costs(rounds: int) -> dict[str, float]:
    """A call of an actor on this machine: seconds of an empty one, and for each byte that it carries."""
    from pycaffe.cluster.connection import connect

    class Receiver:
        def take(self, values: Any) -> int:
            return len(values)

    with connect(None, cpus=2) as connection:
        ray = connection.ray
        receiver = ray.remote(num_cpus=0)(Receiver).remote()
        empty, large = np.zeros(1, np.float32), np.zeros(4_000_000, np.float32)
        ray.get([receiver.take.remote(array) for array in (empty, large)])
        call = _fastest(lambda: ray.get(receiver.take.remote(empty)), rounds)
        carried = _fastest(lambda: ray.get(receiver.take.remote(large)), 10)
    return {"message": call, "copy": (carried - call) / large.nbytes}


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
