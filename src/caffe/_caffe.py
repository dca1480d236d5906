"""What the original's compiled module `_caffe` held, under the same names."""

from __future__ import annotations

import importlib.util
import sys

from pycaffe import glog, rng
from pycaffe.blob import Blob
from pycaffe.devices import set_device, set_mode_cpu, set_mode_gpu
from pycaffe.layers import layer_types
from pycaffe.layers.python import BlobVec
from pycaffe.layers.python import UserLayer as Layer
from pycaffe.net import Net
from pycaffe.parallel import set_multiprocess, set_solver_count, set_solver_rank, solver_count, solver_rank
from pycaffe.solvers import (
    AdaDeltaSolver,
    AdaGradSolver,
    AdamSolver,
    NesterovSolver,
    RMSPropSolver,
    SGDSolver,
    Solver,
    get_solver,
)
from pycaffe.solvers.data_parallel import NCCL
from pycaffe.threads import set_num_threads
from pycaffe.timer import Timer

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "BlobVec",
    "Layer",
    "NCCL",
    "NesterovSolver",
    "Net",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "Timer",
    "get_solver",
    "has_nccl",
    "init_log",
    "layer_type_list",
    "log",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_num_threads",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]

__version__ = "1.0.0"  # the version of the original whose behaviour this is


def set_random_seed(seed: int) -> None:
    """Seeds fillers, DummyData, Dropout and the readers' shuffling, process-wide."""
    rng.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)


def layer_type_list() -> list[str]:
    """The registered layer types in alphabetical order."""
    return layer_types()


def init_log(level: int = 0, stderr: bool = False) -> None:
    """Shows log messages from `level` up (0 INFO, 1 WARNING, 2 ERROR, 3 FATAL) on stderr; quiet without this call."""
    glog.init_log(level)


def log(message: str) -> None:
    """Logs a line at INFO."""
    glog.log(message)


def has_nccl() -> bool:
    """Whether solvers in several processes can train together: with torch, by NCCL on GPUs and by gloo on CPUs."""
    return importlib.util.find_spec("torch") is not None
