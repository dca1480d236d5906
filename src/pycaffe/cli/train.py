"""`caffe train`: trains as a solver prototxt says, with the original's flags and log."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._caffe_cpp import gpus_of, info, stages_of, warnings_in_log
from pycaffe.cli._gflags import GflagsCommand, log_to_stderr
from pycaffe.cli._signal_actions import EFFECTS, on_signals

if TYPE_CHECKING:
    from pycaffe.cli._training_run import TrainingJob
    from pycaffe.solvers import Action

MODES = ("sync", "async", "ssp", "allreduce")


@click.command("train", cls=GflagsCommand)
@click.option("--solver", required=True, metavar="PROTOTXT", help="The solver.")
@click.option("--weights", default="", metavar="CAFFEMODEL,...", help="Begin with these weights: finetuning.")
@click.option("--snapshot", default="", metavar="SOLVERSTATE", help="Go on from this solver state.")
@click.option("--gpu", default="", metavar="N,...|all", help="Run on these GPUs; each has the prototxt's batch size.")
@click.option("--level", type=int, default=0, help="The level of the training net's state.")
@click.option("--stage", default="", help="The stages of the training net's state, separated by commas.")
@click.option("--sigint_effect", type=click.Choice(EFFECTS), default="stop", show_default=True, help="On Ctrl-C.")
@click.option(
    "--sighup_effect", type=click.Choice(EFFECTS), default="snapshot", show_default=True, help="On a hang-up (SIGHUP)."
)
@click.option("--tensorboard", default="", metavar="DIR", help="Write event files for TensorBoard, too.")
@click.option("--workers", type=int, default=0, help="Train on a cluster (Ray), with so many workers.")
@click.option("--servers", type=int, default=1, show_default=True, help="How many hold the parameters.")
@click.option("--mode", type=click.Choice(MODES), default="sync", show_default=True, help="Who waits for whom.")
@click.option("--staleness", type=int, help="Of ssp: how many steps a worker may be ahead of the slowest.")
@click.option("--compression", metavar="fp16|topk:F", help="Of gradients; topk: the largest, a part F of them.")
@click.option("--address", metavar="HOST:PORT|auto", help="The Ray cluster; without it RAY_ADDRESS, else this machine.")
@click.option("--devices", type=click.Choice(("cpu", "gpu")), help="Of the workers; by default as solver_mode says.")
@click.option("--min_workers", type=int, help="Go on as long as so many are left; by default all.")
@click.option("--max_workers", type=int, help="Let workers join up to so many.")
def command(
    solver: str,
    weights: str,
    snapshot: str,
    gpu: str,
    level: int,
    stage: str,
    sigint_effect: str,
    sighup_effect: str,
    tensorboard: str,
    workers: int,
    **cluster: Any,
) -> int:
    """Train a net, from its fillers, from weights, or on from a snapshot.

    The log goes to stderr in the original's form; `caffe plot` draws it. On a terminal a line below it shows how far
    training has come.
    """
    from pycaffe.cli._training_run import TrainingJob

    if snapshot and weights:
        raise click.UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    log_to_stderr()
    param = _solver_param(solver, level, stages_of(stage), weights, snapshot)
    if workers:
        if gpu:
            raise click.UsageError(
                "--gpu names GPUs of this machine. With --workers, give --devices gpu: one for each."
            )
        from pycaffe.cli._training_cluster import ClusterOptions, solve_on_cluster

        job = TrainingJob(param, snapshot, (), tensorboard)
        solve_on_cluster(job, ClusterOptions(workers, **cluster), sigint_effect, sighup_effect)
        return 0
    _check_alone(cluster)
    job = TrainingJob(param, snapshot, _devices(gpu, param), tensorboard)
    if len(job.devices) > 1:
        from pycaffe.cli._solver_processes import solve_on_devices

        return solve_on_devices(job, sigint_effect, sighup_effect)
    _solve_here(job, sigint_effect, sighup_effect)
    return 0


def _check_alone(cluster: dict[str, Any]) -> None:
    """That nothing asks for a cluster where `--workers` does not."""
    defaults = {"servers": 1, "mode": "sync"}
    given = [name for name, value in cluster.items() if value != defaults.get(name)]
    if given:
        raise click.UsageError(f"--{given[0]} is for training on a cluster: give --workers, too.")


def _solver_param(solver: str, level: int, stages: list[str], weights: str, snapshot: str) -> Any:
    """The solver's prototxt with what the command line adds to it (caffe.cpp, train)."""
    from pycaffe.proto.prototxt import read_solver

    param = read_solver(solver)
    param.train_state.level = level
    param.train_state.stage.extend(stages)
    if snapshot or weights:
        param.ClearField("weights")
    if weights:
        param.weights.append(weights)
    return param


def _devices(gpu: str, param: Any) -> tuple[str, ...]:
    """The devices of `--gpu`, else of the prototxt; there a GPU that is missing is the CPU with a warning."""
    from pycaffe import devices

    gpus = gpus_of(gpu)
    if not gpus:
        with warnings_in_log():
            devices.set_mode_by_solver(param)
        default = devices.default_device()
        gpus = [] if default == "cpu" else [int(default.partition(":")[2])]
    if not gpus:
        info(197, "Use CPU.")
        return ("cpu",)
    from pycaffe.cli._cuda_driver import gpu_name

    info(204, f"Using GPUs {', '.join(map(str, gpus))}")
    for number in gpus:
        info(209, f"GPU {number}: {gpu_name(number)}")
    return tuple(f"cuda:{number}" for number in gpus)


def _solve_here(job: TrainingJob, sigint_effect: str, sighup_effect: str) -> None:
    from pycaffe.cli._training_run import solve
    from pycaffe.solvers import Action

    asked: deque[Action] = deque()
    with on_signals(sigint_effect, sighup_effect, asked.append):
        solve(job, lambda: asked.popleft() if asked else Action.NONE)
