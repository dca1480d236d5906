"""`caffe compute_image_mean`: the mean of a database's images, as the original's tool."""

from __future__ import annotations

import logging

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

logger = logging.getLogger(__name__)


@click.command("compute_image_mean", cls=GflagsCommand)
@click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), default="lmdb", show_default=True)
@click.argument("source", metavar="INPUT_DB")
@click.argument("output", metavar="[OUTPUT_FILE]", required=False)
def command(backend: str, source: str, output: str | None) -> None:
    """Compute the mean image of a database, for `mean_file`, and its channels' means, for `mean_value`."""
    from pycaffe.data import open_database
    from pycaffe.data.image_mean import compute_image_mean
    from pycaffe.data.mean import write_mean
    from pycaffe.data.open_database import LEVELDB, LMDB

    log_to_stderr()
    mean = compute_image_mean(open_database(source, {"lmdb": LMDB, "leveldb": LEVELDB}[backend]))
    if output is not None:
        _log(f"Write to {output}", 108)
        write_mean(output, mean)
    _log(f"Number of channels: {len(mean)}", 114)
    for channel, value in enumerate(mean.mean(axis=(1, 2), dtype=float)):
        _log(f"mean_value channel [{channel}]: {value:g}", 119)


def _log(message: str, line: int) -> None:
    logger.info(message, extra={"place": f"compute_image_mean.cpp:{line}"})
