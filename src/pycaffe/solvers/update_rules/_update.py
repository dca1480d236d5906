"""One step of one array: clip, normalise, regularise, compute, apply (sgd_solver.cpp, ApplyUpdate).

    diff ─× clip_scale─→ ─/ iter_size─→ ─+ decay · value (or its sign)─→ rule.compute ─→ value -= diff

Every operation works in place. A large array is taken in blocks, so that what a rule needs beside the arrays stays
small. What was subtracted stays: in `diff`, or where it is the rule's history (SGD) there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pycaffe.blob import FloatArray
from pycaffe.errors import SolverError
from pycaffe.layers._torch import Tensor, torch
from pycaffe.solvers.update_rules._base import UpdateRule

__all__ = ["UpdateStep", "clip_scale", "sum_of_squares", "update"]

# Elements of a block for each thread, tried with benchmarks/bench_solver_update.py. Smaller ones, which stay in a cache
# from the first operation to the last, save at most a tenth where the machine is quiet; but all threads wait for each
# other at the end of each operation on a block, and on a busy machine that costs milliseconds each time.
BLOCK = 1 << 21


@dataclass(frozen=True)
class UpdateStep:
    """What a step does to one array.

    Attributes:
        rate: the learning rate times the parameter's lr_mult.
        iteration: how many steps there were before.
        decay: the weight decay times the parameter's decay_mult.
        regularization: "L2" or "L1".
        clip_scale: what clipping scales the accumulated gradient by.
        iter_size: how many batches the gradient is the sum of.
    """

    rate: float
    iteration: int
    decay: float = 0.0
    regularization: str = "L2"
    clip_scale: float = 1.0
    iter_size: int = 1

    def __post_init__(self) -> None:
        if self.decay and self.regularization not in ("L1", "L2"):
            raise SolverError(
                f"Unknown regularization type: {self.regularization}. Expected regularization_type 'L2' or 'L1'."
            )


def update(
    rule: UpdateRule, value: FloatArray, diff: FloatArray, history: Sequence[FloatArray], step: UpdateStep
) -> None:
    """Takes one step, in place; `diff` then holds what was subtracted from `value`, or `history[0]` does.

    Args:
        rule: the solver's arithmetic.
        value: a parameter or any part of it, flat, contiguous, float32.
        diff: its gradient, likewise.
        history: `rule.num_histories` arrays of that size.
        step: rate, iteration and what comes before the rule.
    """
    size = BLOCK * torch.get_num_threads()
    arrays = [torch.from_numpy(array) for array in (value, diff, *history)]
    scratch = [torch.empty(min(size, value.size)) for _ in range(rule.num_scratch)]
    if value.size <= size:
        _update_block(rule, arrays, scratch, step)
        return
    for parts in zip(*(array.split(size) for array in arrays)):
        length = len(parts[0])
        _update_block(rule, parts, scratch if length == size else [array[:length] for array in scratch], step)


def _update_block(rule: UpdateRule, arrays: Sequence[Tensor], scratch: Sequence[Tensor], step: UpdateStep) -> None:
    value, diff, *history = arrays
    _prepare(value, diff, step)
    rule.compute(diff, history, scratch, step.rate, step.iteration)
    value.sub_(history[0] if rule.subtracts_history else diff)


def _prepare(value: Tensor, diff: Tensor, step: UpdateStep) -> None:
    if step.clip_scale != 1:
        diff.mul_(step.clip_scale)
    if step.iter_size != 1:
        diff.mul_(1 / step.iter_size)
    if step.decay:
        diff.add_(value if step.regularization == "L2" else torch.sign(value), alpha=step.decay)


def sum_of_squares(diff: FloatArray) -> float:
    """The part of a gradient in the square of the norm that clipping looks at."""
    tensor = torch.from_numpy(diff)
    return float(torch.dot(tensor, tensor))


def clip_scale(squares: float, limit: float) -> float:
    """What gradients are scaled by so that their norm, the root of `squares`, is at most `limit` (< 0: no limit)."""
    norm = math.sqrt(squares)
    return limit / norm if 0 <= limit < norm else 1.0
