"""Which device each worker of a pool runs on."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.errors import DeviceError, InputError

__all__ = ["place"]


def place(
    workers: int | None, devices: Sequence[str | int] | str | None, gpus: int | None, *, cores: int, gpus_there: int
) -> list[str]:
    """The device of each worker, "cpu" or "cuda:N".

    Without devices, `workers` on the CPU, one for each core where no number is given. With devices, one worker each,
    or `workers` dealt out to them in turn.

    Args:
        workers: how many.
        devices: names or numbers of GPUs; "all" for all GPUs; one name for a single device.
        gpus: the first so many GPUs.
        cores: that this process may use.
        gpus_there: GPUs of this machine.

    Raises:
        InputError: the arguments contradict each other, or a number makes no sense.
        DeviceError: a device is not there.
    """
    if devices is not None and gpus is not None:
        raise InputError(f"Give devices or gpus, not both. Got devices={devices!r} and gpus={gpus!r}.")
    if workers is not None and workers < 1:
        raise InputError(f"workers is at least 1, not {workers!r}.")
    if gpus is not None:
        if gpus < 1:
            raise InputError(f"gpus is at least 1, not {gpus!r}.")
        names = [_checked(index, gpus_there) for index in range(gpus)]
    elif devices is None:
        return ["cpu"] * (cores if workers is None else workers)
    elif devices == "all":
        names = [f"cuda:{index}" for index in range(gpus_there)]
        if not names:
            raise DeviceError("devices='all': this machine has no GPU. Leave devices out to run on the CPU.")
    else:
        names = [_checked(device, gpus_there) for device in ([devices] if isinstance(devices, str) else devices)]
        if not names:
            raise InputError("devices is empty. Leave it out to run on the CPU.")
    count = len(names) if workers is None else workers
    if count < len(names):
        raise InputError(f"workers={workers!r} is less than the {len(names)} devices {names!r}.")
    return [names[number % len(names)] for number in range(count)]


def _checked(device: str | int, gpus_there: int) -> str:
    name = f"cuda:{device}" if isinstance(device, int) else device
    if name == "cpu":
        return name
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index or "0").isdecimal():
        raise DeviceError(f"Unknown device {device!r}. Expected 'cpu' or 'cuda:N'.")
    if int(index or 0) >= gpus_there:
        raise DeviceError(f"Device {name!r} is not there: this machine has {gpus_there} GPU(s).")
    return f"cuda:{int(index or 0)}"
