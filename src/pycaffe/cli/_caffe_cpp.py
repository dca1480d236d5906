"""What `train`, `test`, `time` and `device_query` share, as tools/caffe.cpp: its log lines, and what `--gpu` names."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["first_device", "gpus_of", "info", "stages_of", "warnings_in_log"]

logger = logging.getLogger("pycaffe.cli")


def info(line: int, message: str) -> None:
    """Logs a line of the original's, at its place in caffe.cpp."""
    logger.info(message, extra={"place": f"caffe.cpp:{line}"})


@contextmanager
def warnings_in_log() -> Iterator[None]:
    """Within the block warnings become lines of the log, at its end; Python would show them with a line of ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        logger.warning("%s", warning.message)


def stages_of(text: str) -> list[str]:
    """The stages of `--stage`, which commas separate."""
    return [stage for stage in text.split(",") if stage]


def gpus_of(text: str) -> list[int]:
    """The GPUs of `--gpu`: "" for none, "0", "0,1", or "all".

    Raises:
        click.BadParameter: another form, or one GPU twice.
        DeviceError: there is no such GPU.
    """
    from pycaffe.devices import check_device, gpu_count

    if text == "all":
        check_device("cuda:0")
        return list(range(gpu_count()))
    names = [name.strip() for name in text.split(",")] if text else []
    if not all(name.isdecimal() for name in names):
        raise click.BadParameter(f"{text!r} is neither numbers of GPUs, as 0,1, nor all.", param_hint="--gpu")
    gpus = [int(name) for name in names]
    if len(set(gpus)) < len(gpus):
        raise click.BadParameter(f"{text!r} names a GPU twice.", param_hint="--gpu")
    for gpu in gpus:
        check_device(f"cuda:{gpu}")
    return gpus


def first_device(text: str) -> str:
    """The device of `--gpu` for a verb that uses one; of several GPUs it is the first."""
    gpus = gpus_of(text)
    return f"cuda:{gpus[0]}" if gpus else "cpu"
