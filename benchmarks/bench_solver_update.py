"""One step of each solver on CaffeNet's 61 million parameters, beside PyTorch's own SGD in the same process.

Prints milliseconds; with --blocks for several sizes of the blocks that a step goes through (BLOCK of
solvers/update_rules/_update.py).
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import arguments

from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers.update_rules import UpdateStep, solver_types, update, update_rule_class

SHAPES = [
    (96, 3, 11, 11), (96,), (256, 48, 5, 5), (256,), (384, 256, 3, 3), (384,), (384, 192, 3, 3), (384,),
    (256, 192, 3, 3), (256,), (4096, 9216), (4096,), (4096, 4096), (4096,), (1000, 4096), (1000,),
]  # fmt: skip
RUNS = 7


def main() -> None:
    options = arguments(__doc__)
    options.add_argument("--blocks", type=int, nargs="+", help="sizes to try")
    asked = options.parse_args()
    runs = 2 if asked.quick else RUNS
    module = importlib.import_module("pycaffe.solvers.update_rules._update")
    peer = best(torch_step(), runs)
    print(f"torch.optim.SGD      {peer:7.1f} ms")
    for solver_type in solver_types():
        for block in asked.blocks or [module.BLOCK]:
            module.BLOCK = block
            took = best(solver_step(solver_type), runs)
            print(f"{solver_type:9} {block:8}   {took:7.1f} ms, {took / peer:.2f} times torch.optim.SGD")


def best(step: Callable[[], None], runs: int) -> float:
    """Milliseconds of the quickest of some runs, after one that is not counted."""
    step()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds)


def torch_step() -> Callable[[], None]:
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape)
    optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    return lambda: optimizer.step() and None


def solver_step(solver_type: str) -> Callable[[], None]:
    momentum = 0.0 if solver_type in ("AdaGrad", "RMSProp") else 0.9
    rule = update_rule_class(solver_type)(SolverParameter(momentum=momentum))
    rng = np.random.default_rng(1)
    values, diffs = ([rng.standard_normal(math.prod(shape), np.float32) for shape in SHAPES] for _ in range(2))
    histories = [[np.zeros_like(value) for _ in range(rule.num_histories)] for value in values]

    def step() -> None:
        for value, diff, history in zip(values, diffs, histories):
            update(rule, value, diff, history, UpdateStep(1e-4, 1, decay=5e-4))

    return step


if __name__ == "__main__":
    main()
