"""The arithmetic of the six solvers on plain float32 arrays: no net and no file in it. One rule a file."""

from pycaffe.solvers.update_rules._base import UpdateRule
from pycaffe.solvers.update_rules._registry import register_solver, solver_types, update_rule_class
from pycaffe.solvers.update_rules._update import UpdateStep, clip_scale, sum_of_squares, update

__all__ = [
    "UpdateRule",
    "UpdateStep",
    "clip_scale",
    "register_solver",
    "solver_types",
    "sum_of_squares",
    "update",
    "update_rule_class",
]
