"""onnxruntime, imported when it is first needed and without its usage reports."""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = ["load_onnxruntime", "runs_on"]

SWITCH = "ORT_DISABLE_TELEMETRY"


def load_onnxruntime() -> Any:
    """The module `onnxruntime`.

    From release 1.29 on it sends usage data to its maker, by a thread that its import starts. Here it does not, unless
    the user has set ORT_DISABLE_TELEMETRY to something else or imported it before: a net runs without a network, and
    a process that forks has no thread that it did not ask for.
    """
    if "onnxruntime" not in sys.modules and SWITCH not in os.environ:
        os.environ[SWITCH] = "1"  # read while the library loads
        try:
            import onnxruntime
        finally:
            del os.environ[SWITCH]
    import onnxruntime

    return onnxruntime


def runs_on(device: str) -> bool:
    """Whether this build of onnxruntime has kernels for "cpu" or "cuda:N". Its usual one has none for GPUs.

    Asked for such a device it would warn and run on the CPU.
    """
    return device == "cpu" or "CUDAExecutionProvider" in load_onnxruntime().get_available_providers()
