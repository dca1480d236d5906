"""Whether workers are forked from a zygote or spawned: a fork is safe where there is but one thread."""

from __future__ import annotations

import sys
from typing import Literal

__all__ = ["StartMethod", "start_method"]

StartMethod = Literal["zygote", "spawn"]


def start_method(
    device: str = "cpu",
    precision: str = "float32",
    threads: int = 1,
    *,
    platform: str = sys.platform,
    implementation: str = sys.implementation.name,
) -> StartMethod:
    """How a worker of a pool comes to be.

    Args:
        device: that it works on: a GPU's context does not survive a fork.
        precision: "bfloat16" runs on OpenVINO, which always has threads.
        threads: of one forward: the session of more than one has them from its first moment.
        platform: as `sys.platform`. macOS's own libraries do not survive a fork, Windows has none.
        implementation: as `sys.implementation.name`.
    """
    forks = (
        platform == "linux"
        and implementation == "cpython"
        and device == "cpu"
        and precision in ("float32", "int8")
        and threads == 1
    )
    return "zygote" if forks else "spawn"
