"""From a solver type to its rule, by file name, as for layers: type `AdaGrad` lives in `update_rules/ada_grad.py`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import TypeVar

from pycaffe.errors import SolverError, did_you_mean
from pycaffe.solvers.update_rules._base import UpdateRule

__all__ = ["register_solver", "solver_types", "update_rule_class"]

_classes: dict[str, type[UpdateRule]] = {}
_Rule = TypeVar("_Rule", bound=type[UpdateRule])


def register_solver(solver_type: str) -> Callable[[_Rule], _Rule]:
    """Class decorator: makes the class the rule of `solver_type`. A second class for a type is an error."""

    def register(cls: _Rule) -> _Rule:
        known = _classes.get(solver_type)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise SolverError(
                f"Solver type {solver_type!r} already registered, by {known.__module__}.{known.__name__}."
            )
        cls.type = solver_type
        _classes[solver_type] = cls
        return cls

    return register


def solver_types() -> list[str]:
    """All registered types in alphabetical order."""
    _import_rules()
    return sorted(_classes)


@functools.cache
def _import_rules() -> None:
    """The modules of this folder. Servers ask for their rule at each restart: the folder is read once."""
    import pycaffe.solvers.update_rules as package

    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            importlib.import_module(f"{package.__name__}.{module.name}")


def update_rule_class(solver_type: str) -> type[UpdateRule]:
    """The rule of a type.

    Raises:
        SolverError: with the known types and the nearest one.
    """
    known = solver_types()
    if solver_type not in _classes:
        raise SolverError(
            f"Unknown solver type: {solver_type} (known types: {', '.join(known)}).{did_you_mean(solver_type, known)}"
        )
    return _classes[solver_type]
