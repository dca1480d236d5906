"""The six solvers as classes that take a prototxt of any type, and `get_solver`, which obeys the prototxt."""

from __future__ import annotations

import os
from typing import Any

from pycaffe.solvers.solver import Solver, read_solver_param

__all__ = [
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "NesterovSolver",
    "RMSPropSolver",
    "SGDSolver",
    "get_solver",
]


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum, whatever the prototxt's `type` says."""

    solver_type = "SGD"


class NesterovSolver(SGDSolver):
    """Momentum that looks ahead."""

    solver_type = "Nesterov"


class AdaGradSolver(SGDSolver):
    """A rate for each weight, smaller the larger its gradients were."""

    solver_type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    """A rate for each weight by the recent size of its gradients."""

    solver_type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    """Steps as large as the recent ones, in units of the recent gradients."""

    solver_type = "AdaDelta"


class AdamSolver(SGDSolver):
    """Momentum, in units of the recent size of the gradients."""

    solver_type = "Adam"


_CLASSES: tuple[type[Solver], ...] = (
    SGDSolver,
    NesterovSolver,
    AdaGradSolver,
    RMSPropSolver,
    AdaDeltaSolver,
    AdamSolver,
)


def get_solver(solver: str | os.PathLike[str] | Any) -> Solver:
    """The solver that a prototxt, or a SolverParameter, asks for by its `type`.

    Raises:
        SolverError: the type is unknown; others as `Solver`.
    """
    param = read_solver_param(solver)
    by_type = {cls.solver_type: cls for cls in _CLASSES}
    return by_type.get(param.type, Solver)(param)
