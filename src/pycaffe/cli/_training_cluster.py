"""`caffe train --workers W`: the solver on a cluster, with the signals and the display of one process."""

from __future__ import annotations

from dataclasses import dataclass

import click

from pycaffe.cli._signal_actions import on_signals
from pycaffe.cli._training_run import TrainingJob, showing
from pycaffe.errors import CaffeError

__all__ = ["ClusterOptions", "solve_on_cluster"]


@dataclass(frozen=True)
class ClusterOptions:
    """The options of `pycaffe.cluster.train` that the command line has."""

    workers: int
    servers: int
    mode: str
    staleness: int | None
    compression: str | None
    devices: str | None
    address: str | None
    min_workers: int | None
    max_workers: int | None


def solve_on_cluster(job: TrainingJob, options: ClusterOptions, sigint_effect: str, sighup_effect: str) -> None:
    """Trains on a cluster.

    Raises:
        click.ClickException: (exit status 1: the command was right) for an error of ours.
    """
    from pycaffe import cluster
    from pycaffe.solvers import Action

    control = cluster.RunControl()

    def ask(action: Action) -> None:
        (control.stop if action is Action.STOP else control.snapshot)()

    with showing(job.tensorboard, 0, job.param.max_iter) as advance, on_signals(sigint_effect, sighup_effect, ask):
        try:
            cluster.train(
                job.param,
                workers=options.workers,
                servers=options.servers,
                mode=options.mode,
                staleness=options.staleness,
                compression=options.compression,
                devices=options.devices,
                snapshot=job.snapshot or None,
                address=options.address,
                on_progress=advance,
                min_workers=options.min_workers,
                max_workers=options.max_workers,
                control=control,
            )
        except CaffeError as error:
            raise click.ClickException(str(error)) from error
