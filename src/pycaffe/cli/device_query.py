"""`caffe device_query`: what the GPUs are, as the original logs it."""

from __future__ import annotations

import logging

import click

from pycaffe.cli._caffe_cpp import gpus_of, info
from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

logger = logging.getLogger("pycaffe.cli")


@click.command("device_query", cls=GflagsCommand)
@click.option("--gpu", default="", metavar="N,...", help="These GPUs.  [default: all that there are]")
def command(gpu: str) -> None:
    """Log to stderr what GPUs this process may use."""
    from pycaffe.cli._cuda_driver import describe_gpu
    from pycaffe.devices import gpu_count

    log_to_stderr()
    info(138, f"Querying GPUs {gpu or 'all'}")
    if not gpu and gpu_count() == 0:
        logger.info("No cuda device present.")
    for number in gpus_of(gpu) if gpu else range(gpu_count()):
        for line, message in describe_gpu(number):
            logger.info(message, extra={"place": f"common.cpp:{line}"})
