"""Mode and device: the process-wide default that scripts set, and devices that are named outright.

`set_mode_gpu`, `set_device` and a solver's `solver_mode: GPU` set the default, read at each forward by nets without a
device of their own. On a machine without a GPU they fall back to the CPU with one warning, because every other script
begins with them; `PYCAFFE_REQUIRE_GPU=1` makes that an error. A device that is named outright has to be there.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import warnings
from typing import Any

from pycaffe.errors import DeviceError

__all__ = [
    "check_device",
    "default_device",
    "gpu_count",
    "set_device",
    "set_mode_by_solver",
    "set_mode_cpu",
    "set_mode_gpu",
]

SOLVER_MODE_GPU = 1  # SolverParameter.SolverMode
_mode_gpu = False
_device = 0
_warned = False


@functools.cache
def gpu_count() -> int:
    """How many NVIDIA GPUs this process may use; 0 without a driver. Heeds CUDA_VISIBLE_DEVICES.

    Asks the management library and not CUDA: a process that has initialised CUDA cannot fork workers that use it.
    """
    for name in ("libnvidia-ml.so.1", "nvml.dll"):
        try:
            management = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_uint(0)
        if management.nvmlInit_v2() == 0 and management.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            return (
                count.value if visible is None else min(count.value, len([v for v in visible.split(",") if v.strip()]))
            )
    return 0


def set_mode_cpu() -> None:
    """Nets without a device of their own run on the CPU from now on."""
    global _mode_gpu
    _mode_gpu = False


def set_mode_gpu() -> None:
    """Nets without a device of their own run on the default GPU from now on; without one, on the CPU with a warning."""
    global _mode_gpu
    _mode_gpu = _gpu_or_warning("set_mode_gpu()", 0)


def set_device(device: int) -> None:
    """Chooses the GPU that `set_mode_gpu` means; without one, a warning."""
    global _device
    if _gpu_or_warning(f"set_device({device!r})", device):
        _device = device


def set_mode_by_solver(param: Any) -> None:
    """Does what `solver_mode` and `device_id` of a SolverParameter ask; nothing where it does not state a mode.

    (tools/caffe.cpp takes an unstated mode for GPU. Without a GPU that would warn about every solver there is.)
    """
    global _mode_gpu, _device
    if not param.HasField("solver_mode"):
        return
    device = max(param.device_id, 0)
    _mode_gpu = param.solver_mode == SOLVER_MODE_GPU and _gpu_or_warning("solver_mode: GPU", device)
    if _mode_gpu:
        _device = device


def default_device() -> str:
    """Where nets without a device run: "cpu" or "cuda:N", as the last `set_mode_*` and `set_device` say."""
    return f"cuda:{_device}" if _mode_gpu else "cpu"


def check_device(device: str) -> str:
    """A device named outright, in the form "cpu" or "cuda:N".

    Raises:
        DeviceError: another form, or this machine has no such device.
    """
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", device)
    if match is None:
        raise DeviceError(f"Unknown device {device!r}. Expected 'cpu' or 'cuda:N'.")
    if device == "cpu":
        return device
    index = int(match.group(1) or 0)
    if index >= gpu_count():
        raise DeviceError(f"Device {device!r} is not there: this machine has {gpu_count()} GPU(s). Use the CPU.")
    return f"cuda:{index}"


def _gpu_or_warning(asked_by: str, device: int) -> bool:
    global _warned
    if 0 <= device < gpu_count():
        return True
    message = f"{asked_by}: GPU {device} is not there ({gpu_count()} found); running on the CPU."
    if os.environ.get("PYCAFFE_REQUIRE_GPU") == "1":
        raise DeviceError(message + " PYCAFFE_REQUIRE_GPU=1 makes this an error.")
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    return False
