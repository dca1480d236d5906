"""Training through parameter servers: what the protocol costs and sends, slow workers, what is learned.

    bench_cluster.py [--sections overhead,protocol,payload,stragglers,accuracy,faults,nodes,link]
                     [--trials sync,ssp,async,fp16,topk:0.01] [--quick]

overhead    iterations/s of one worker and one server over those of `caffe train`'s solver, CIFAR-10 quick and LeNet
protocol    milliseconds of a step beyond that solver's, for a net with almost no payload, and what LeNet's payload adds
payload     bytes per worker and step over those of the parameters, by compression
stragglers  steps/s of 4 workers that sleep in place of working, over those of `sync`; how far `ssp` ran ahead
accuracy    LeNet on MNIST, 4 workers of 16 images each, with 1.3 times the images that one process needs for 0.98;
            each of the trials is about a minute
faults      the same, where SIGKILL ends 3 workers, a server and then the process that began the run, which is resumed
nodes       the same on two nodes, one of which is taken away with what runs on it
link        2 workers of 32 images on two nodes in network namespaces, between which the link is cut for 10 and for 60 s

Peers run in turn, one after the other has ended. Everything runs on this machine, on a Ray that is started for it.
"""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import lmdb
import numpy as np
from measure import SEED, arguments, verdict

import caffe
from pycaffe.cluster import Run, train
from pycaffe.cluster.connection import connect
from pycaffe.proto import schema

ROOT = pathlib.Path(__file__).parents[1]
sys.path.append(str(ROOT))
from tests.cluster.training.run_processes import processes_in  # noqa: E402
from tests.cluster.training.two_namespaces import (  # noqa: E402
    END_SECONDS,
    run_with_cuts,
    two_nodes,
    why_no_namespaces,
)

SECTIONS = ("overhead", "protocol", "payload", "stragglers", "accuracy", "faults", "nodes", "link")
SHAPES = {"cifar10_quick": (100, 3, 32, 32), "lenet": (64, 1, 28, 28)}
COMPRESSIONS = {None: (1.01, 1.01), "fp16": (0.505, 0.505), "topk:0.01": (0.03, 1.01)}  # bars: pushed, pulled
STRAGGLERS = {
    "each step 5 times as long with probability 0.2": ({"probability": 0.2, "rank": -1}, {"ssp": 1.3, "async": 1.6}),
    "one worker always 5 times slower": ({"probability": 0.0, "rank": 3}, {"ssp": 0.0, "async": 2.5}),
}
TRIALS = {
    "sync": {}, "ssp": {"mode": "ssp", "staleness": 2}, "async": {"mode": "async"},
    "fp16": {"compression": "fp16"}, "topk:0.01": {"compression": "topk:0.01"},
}  # fmt: skip
ACCURACY = 0.98
LENET_PARAMETERS = 431_080
STALENESS = 4


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sections", type=lambda s: s.split(","), default=list(SECTIONS))
    parser.add_argument("--trials", type=lambda s: s.split(","), default=list(TRIALS), help="of accuracy")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    with tempfile.TemporaryDirectory() as folder, connect(cpus=8):
        os.chdir(folder)
        for section in options.sections:
            print(f"\n{section}", flush=True)
            if section == "accuracy":
                accuracy(options.trials)
            else:
                globals()[section](options.quick)


# -- nets on files


def write_solver(name: str, net: Any, iterations: int, more: str = "") -> str:
    """Writes net and solver into the working directory; returns the solver's name."""
    pathlib.Path(f"{name}.net").write_text(str(net))
    pathlib.Path(f"{name}.solver").write_text(
        f'net: "{name}.net" lr_policy: "fixed" base_lr: 0.0001 momentum: 0.9 weight_decay: 0.0005 display: 0 '
        f"max_iter: {iterations} random_seed: {SEED} snapshot_after_train: false solver_mode: CPU {more}"
    )
    return f"{name}.solver"


def image_net(name: str) -> Any:
    """The training net of benchmarks/nets, on a database of random images."""
    batch, channels, height, width = SHAPES[name]
    if not pathlib.Path(f"{name}_lmdb").exists():
        rng = np.random.default_rng(SEED)
        with lmdb.open(f"{name}_lmdb", map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
            for index in range(10 * batch):
                data = rng.integers(0, 256, (channels, height, width), np.uint8).tobytes()
                record = schema.Datum(channels=channels, height=height, width=width, data=data, label=index % 10)
                transaction.put(b"%08d" % index, record.SerializeToString())
    net = getattr(importlib.import_module(f"nets.{name}"), f"{name}_train")(batch)
    del net.layer[0]
    reader = schema.LayerParameter(name="data", type="Data", top=["data", "label"])
    reader.data_param.source, reader.data_param.backend = f"{name}_lmdb", reader.data_param.LMDB
    reader.data_param.batch_size, reader.transform_param.scale = batch, 1 / 256
    everything = type(net)(layer=[reader, *net.layer])
    return everything


def seconds_alone(solver: str, iterations: int) -> float:
    """Of an iteration of the solver that `caffe train` runs."""
    one = caffe.get_solver(solver)
    one.step(5)
    begun = time.perf_counter()
    one.step(iterations)
    return (time.perf_counter() - begun) / iterations


def seconds_of(run: Run) -> float:
    """Of a step of the slowest worker: the median from one step's values to the next's."""
    times: dict[int, list[float]] = {}
    for event in run.trace:
        if event.kind == "pull" and event.clock >= 5:
            times.setdefault(event.worker, []).append(event.time)
    return max(statistics.median(np.diff(pulled)) for pulled in times.values())


# -- sections


def overhead(quick: bool) -> None:
    for name in SHAPES:
        iterations = 20 if quick else 100
        solver = write_solver(name, image_net(name), iterations + 5)
        alone, cluster = [], []
        for _ in range(1 if quick else 3):
            alone.append(seconds_alone(solver, iterations))
            cluster.append(seconds_of(train(solver, workers=1)))
        ratio = statistics.median(alone) / statistics.median(cluster)
        held = verdict(ratio >= 0.8) if name == "cifar10_quick" else "(no bar)"  # LeNet's steps are a few milliseconds
        print(f"  {held:12} {ratio:.2f} of {1 / statistics.median(alone):.1f} iterations/s  {name}", flush=True)


def protocol(quick: bool) -> None:
    steps = 100 if quick else 500
    tiny, large = (write_solver(f"fc{inputs}", one_layer(inputs), steps) for inputs in (8, LENET_PARAMETERS // 4))
    alone, alone_large = seconds_alone(tiny, 100), seconds_alone(large, 100)
    for workers in (1, 2):
        cost = (seconds_of(train(tiny, workers=workers)) - alone) * 1e3
        print(f"  {verdict(cost < 5):12} {cost:.2f} ms a step beyond {alone * 1e3:.2f} ms, {workers} worker(s)")
        transfer = (seconds_of(train(large, workers=workers)) - alone_large) * 1e3 - cost
        print(
            f"  {'(no bar)':12} {transfer:.2f} ms more for {4e-6 * LENET_PARAMETERS:.2f} MB pushed and pulled",
            flush=True,
        )


def one_layer(inputs: int, python: Any = None) -> Any:
    """A net of one InnerProduct with 4 outputs, behind a Python layer where one is given."""
    net = schema.NetParameter()
    data = net.layer.add(name="data", type="DummyData", top=["data", "label"])
    data.dummy_data_param.shape.add(dim=[4, inputs])
    data.dummy_data_param.shape.add(dim=[4])
    if python is not None:
        net.layer.append(python)
    fc = net.layer.add(name="fc", type="InnerProduct", bottom=[net.layer[-1].top[0]], top=["fc"])
    fc.inner_product_param.num_output = 4
    net.layer.add(name="loss", type="SoftmaxWithLoss", bottom=["fc", "label"], top=["loss"])
    return net


def payload(quick: bool) -> None:
    solver = write_solver("lenet", image_net("lenet"), 12)
    size = sum(4 * blob.count for blobs in caffe.get_solver(solver).net.params.values() for blob in blobs)
    for compression, bars in COMPRESSIONS.items():
        run = train(solver, workers=2, servers=2, compression=compression)
        # The first pull brings everything, before any step.
        figures = run.bytes_pushed / (24 * size), run.bytes_pulled / (24 * size) - 1 / 12 * bars[1]
        held = all(figure <= bar for figure, bar in zip(figures, bars))
        print(f"  {verdict(held):12} pushed {figures[0]:.4f}, pulled {figures[1]:.4f}  {compression or 'none'}")


def stragglers(quick: bool) -> None:
    shutil.copy(ROOT / "benchmarks" / "straggler.py", "straggler.py")
    for what, (options, bars) in STRAGGLERS.items():
        sleep = schema.LayerParameter(name="sleep", type="Python", bottom=["data"], top=["slept"])
        sleep.python_param.module, sleep.python_param.layer = "straggler", "Straggler"
        sleep.python_param.param_str = json.dumps({"seconds": 0.1, "factor": 5, **options})
        solver = write_solver("straggler", one_layer(8, sleep), 30 if quick else 100)
        runs = {
            mode: train(solver, workers=4, mode=mode, staleness=STALENESS if mode == "ssp" else None)
            for mode in ("sync", "ssp", "async")
        }
        rates = {mode: rate_of(run) for mode, run in runs.items()}
        print(f"  {what}: sync {rates['sync']:.1f} steps/s of all workers")
        for mode, bar in bars.items():
            ratio = rates[mode] / rates["sync"]
            print(f"    {verdict(ratio >= bar) if bar else '':12} {ratio:.2f} times as many  {mode}")
        ahead = steps_ahead(runs["ssp"])
        print(f"    {verdict(ahead <= STALENESS):12} {ahead} steps ahead of the slowest at most  ssp", flush=True)


def steps_ahead(run: Run) -> int:
    """How many steps a worker that begins one has over the least that any worker has sent, at most."""
    sent: dict[int, int] = {event.worker: 0 for event in run.trace}
    most = 0
    for event in sorted(run.trace, key=lambda event: event.time):
        if event.kind == "push":
            sent[event.worker] = event.clock + 1
        else:
            most = max(most, event.clock - min(sent.values()))
    return most


def rate_of(run: Run) -> float:
    """Steps of all workers in a second."""
    pushed = [event.time for event in run.trace if event.kind == "push"]
    return (len(pushed) - 1) / (max(pushed) - min(pushed))


def accuracy(trials: Sequence[str]) -> None:
    net, text = mnist_files()
    needed, iterations, alone = trained_alone(solver_of_mnist(net, text, 64, 4000))
    print(f"  one process: {needed} images until {ACCURACY:g}; {alone:.4f} after {iterations * 64}", flush=True)
    for name in trials:
        solver = solver_of_mnist(net, text, 16, iterations)
        reached = test_accuracy(solver, train(solver, workers=4, **TRIALS[name]))
        bar = alone - 0.003 if "compression" in TRIALS[name] else ACCURACY
        print(f"  {verdict(reached >= bar):12} {reached:.4f} after {iterations * 64} images  {name}", flush=True)


def mnist_files() -> tuple[str, str]:
    """Links the databases into the working directory; the texts of LeNet's net and solver."""
    made = subprocess.run([sys.executable, str(ROOT / "scripts" / "make_mnist")], capture_output=True, text=True)
    for database in pathlib.Path(made.stdout.strip()).iterdir():
        if not pathlib.Path(database.name).exists():
            os.symlink(database, database.name, target_is_directory=True)
    golden = ROOT / "tests" / "golden" / "mnist"
    return (golden / "lenet_train_test.prototxt").read_text(), (golden / "lenet_solver.prototxt").read_text()


def solver_of_mnist(net: str, solver: str, batch: int, iterations: int) -> str:
    """LeNet's own solver on nets with another batch for training."""
    pathlib.Path(f"mnist{batch}.net").write_text(net.replace("batch_size: 64", f"batch_size: {batch}", 1))
    param = schema.SolverParameter()
    from google.protobuf import text_format

    text_format.Parse(solver, param)
    param.net, param.max_iter, param.random_seed = f"mnist{batch}.net", iterations, SEED
    param.display, param.snapshot, param.snapshot_after_train = 0, 0, False
    param.test_initialization, param.test_interval = False, 1 << 30
    param.solver_mode = param.CPU
    pathlib.Path(f"mnist{batch}.solver").write_text(str(param))
    return f"mnist{batch}.solver"


def trained_alone(solver: str) -> tuple[int, int, float]:
    """Of one process: images until the accuracy is reached, iterations for 1.3 times as many, and what they reach."""
    one = caffe.get_solver(solver)
    while one.iter < one.param.max_iter:
        one.step(50)
        if mean_accuracy(one) >= ACCURACY:
            break
    needed = int(one.iter)
    iterations = int(1.3 * needed)
    one.step(iterations - needed)
    return 64 * needed, iterations, mean_accuracy(one)


def test_accuracy(solver: str, run: Run) -> float:
    """Of a run's parameters on the test images."""
    one = caffe.get_solver(solver)
    for name, arrays in run.params.items():
        for blob, array in zip(one.net.params[name], arrays):
            blob.data[...] = array
    return mean_accuracy(one)


def mean_accuracy(solver: Any) -> float:
    (net,) = solver.test_nets
    net.share_with(solver.net)
    return float(np.mean([float(net.forward()["accuracy"]) for _ in range(solver.param.test_iter[0])]))


def faults(quick: bool) -> None:
    iterations = 300 if quick else 1900  # a little more than two epochs of 60,000
    solver = solver_with_snapshots(iterations, iterations // 10, "faults")
    shutil.copy(ROOT / "benchmarks" / "dying_run.py", "dying_run.py")
    told = pathlib.Path("told.jsonl")
    left, deaths, done = [], [], []
    snapshot, reached = "", 0
    while not pathlib.Path(f"faults_iter_{iterations}.solverstate").exists():
        command = [sys.executable, "dying_run.py", solver, str(SEED), snapshot]
        with subprocess.Popen(command, start_new_session=True) as run:
            pass
        if run.returncode not in (0, -signal.SIGKILL):
            raise SystemExit(f"dying_run.py ended with {run.returncode}")
        time.sleep(5)
        left += processes_in(run.pid)
        states = sorted(pathlib.Path().glob("faults_iter_*.solverstate"), key=lambda path: path.stat().st_mtime)
        snapshot = str(states[-1])
        lines = [json.loads(line) for line in told.read_text().splitlines()]
        told.unlink()
        deaths += [line["death"] for line in lines if "death" in line]
        begun, reached = reached, int(snapshot.split("_")[-1].split(".")[0])
        counted = {line["iteration"]: line["batches"] for line in lines if "batches" in line}
        done += [4 * begun + batch for batch in counted[reached]]  # a run counts from where it begins
    whole = sorted(done) == list(range(4 * iterations))
    print(f"  {verdict(whole):12} {len(done)} of {4 * iterations} batches count, each once")
    print(f"  {verdict(sorted(deaths) == ['driver', 'server'] + 3 * ['worker']):12} died: {', '.join(deaths)}")
    print(f"  {verdict(not left):12} {len(left)} processes left 5 s after each end")
    print_accuracy(solver, snapshot, quick)


def nodes(quick: bool) -> None:
    iterations = 300 if quick else 2800
    solver = solver_with_snapshots(iterations, iterations, "nodes")
    shutil.copy(ROOT / "benchmarks" / "lost_node_run.py", "lost_node_run.py")
    command = [sys.executable, "lost_node_run.py", solver]
    # Ray's nodes of one machine need no token; how soon it knows that one is gone, in milliseconds.
    env = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_health_check_period_ms": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True, env=env) as run:
        printed, _ = run.communicate()
    if run.returncode != 0:
        raise SystemExit(f"lost_node_run.py ended with {run.returncode}")
    time.sleep(5)
    left = processes_in(run.pid)
    told = json.loads(printed.strip().splitlines()[-1])
    gone, batches = told["gone"], told["batches"]
    print(f"  {verdict(bool(gone and told['restarts'])):12} a node went after {gone} of {iterations} steps")
    print(f"  {verdict(batches == list(range(len(batches)))):12} {len(batches)} batches of 16 count, each once")
    print(f"  {verdict(not left):12} {len(left)} processes left 5 s after the end")
    print_accuracy(solver, f"nodes_iter_{iterations}.solverstate", quick)


def link(quick: bool) -> None:
    if why := why_no_namespaces():
        print(f"  not run: no network namespaces can be made here: {why}", flush=True)
        return
    iterations = 300 if quick else 2800
    solver = solver_with_snapshots(1_000_000, 0, "link", batch=32)  # it is stopped
    with two_nodes() as spaces:
        told = run_with_cuts(spaces, solver, iterations, seconds=1800)
    waited, went_on = told["while cut for 10"], told["while cut for 60"]
    print(f"  {verdict(waited == 0):12} {waited} steps while the link was cut for 10 s, all waited")
    print(f"  {verdict(went_on > 0):12} {went_on} steps while it was cut for 60 s, without the other node")
    print(f"  {verdict(told['whole']):12} {told['batches']} batches of 32 count in {told['iter']} steps, each once")
    wrong = told["twice"] + told["others"]
    print(f"  {verdict(not wrong):12} {wrong} batches read twice, or by another than they were given to")
    print(f"  {verdict(not told['left']):12} {len(told['left'])} processes left {END_SECONDS:.0f} s after the end")
    print_accuracy(solver, f"link_iter_{told['iter']}.solverstate", quick)


def solver_with_snapshots(iterations: int, every: int, prefix: str, batch: int = 16) -> str:
    """LeNet's solver for workers of so many images each; it takes a snapshot at its end."""
    solver = solver_of_mnist(*mnist_files(), batch, iterations)
    text = pathlib.Path(solver).read_text().replace("snapshot: 0", f"snapshot: {every}")
    text = text.replace("snapshot_after_train: false", "snapshot_after_train: true")
    pathlib.Path(solver).write_text(f'{text}snapshot_prefix: "{prefix}"')
    return solver


def print_accuracy(solver: str, snapshot: str, quick: bool) -> None:
    """On the test images, of a snapshot at a run's end."""
    one = caffe.get_solver(solver)
    one.restore(snapshot)
    reached = mean_accuracy(one)
    print(f"  {verdict(reached >= (0.9 if quick else ACCURACY)):12} {reached:.4f} at the end", flush=True)


if __name__ == "__main__":
    sys.exit(main())
