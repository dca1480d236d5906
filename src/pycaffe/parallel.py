"""Which of the solvers that train together this process is (common.hpp: solver_count, solver_rank, multiprocess).

Every solver is a process of its own, so the three values are the process's, where the original keeps them by thread.
Readers look at them: in the TRAIN phase each takes every `solver_count`-th record, beginning with its rank.
"""

from __future__ import annotations

from pycaffe.errors import InputError

__all__ = [
    "multiprocess",
    "root_solver",
    "set_multiprocess",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
]

_count = 1
_rank = 0
_multiprocess = False


def solver_count() -> int:
    """How many solvers train together."""
    return _count


def set_solver_count(count: int) -> None:
    """Says how many solvers train together.

    Raises:
        InputError: (a ValueError) there are fewer than one.
    """
    global _count
    if count < 1:
        raise InputError(f"solver_count must be at least 1, got {count!r}.")
    _count = count


def solver_rank() -> int:
    """Which of the solvers this process is, from 0."""
    return _rank


def set_solver_rank(rank: int) -> None:
    """Says which of the solvers this process is.

    Raises:
        InputError: (a ValueError) the rank is negative.
    """
    global _rank
    if rank < 0:
        raise InputError(f"solver_rank must not be negative, got {rank!r}.")
    _rank = rank


def root_solver() -> bool:
    """Whether this process is the one that tests, logs and writes snapshots."""
    return _rank == 0


def multiprocess() -> bool:
    """What `set_multiprocess` said; nothing depends on it, since every solver is a process here."""
    return _multiprocess


def set_multiprocess(value: bool) -> None:
    """Says whether solvers are processes of their own; kept for scripts."""
    global _multiprocess
    _multiprocess = value
