"""What workers, servers and the coordinator say to each other. Plain data; every one of them pickles.

Each message of a worker carries its `Sender`. A server whose generation is another, or that knows a newer incarnation
of that rank, answers `Stale` and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pycaffe.blob import FloatArray
from pycaffe.cluster.protocol.assignment import Assignment, CountedSteps
from pycaffe.cluster.protocol.compression import Dense, Encoded
from pycaffe.errors import SolverError

__all__ = [
    "Checkpoint",
    "Counted",
    "Mode",
    "Part",
    "PieceState",
    "Pull",
    "Push",
    "Restore",
    "Sender",
    "Squares",
    "Stale",
    "Values",
    "parse_mode",
]


@dataclass(frozen=True)
class Mode:
    """How far workers may be apart.

    Attributes:
        name: "sync", "ssp" or "async".
        staleness: how many steps a worker may be ahead of the slowest; None for any number.
    """

    name: str = "sync"
    staleness: int | None = 0


def parse_mode(name: str, staleness: int | None = None) -> Mode:
    """The mode of these two options.

    Raises:
        SolverError: the name is unknown, or staleness is missing, negative or given to a mode that has none.
    """
    if name not in ("sync", "async", "ssp"):
        raise SolverError(f"mode is 'sync', 'async', 'ssp' or 'allreduce'; got {name!r}.")
    if name != "ssp":
        if staleness is not None:
            raise SolverError(f"staleness={staleness!r} is of mode 'ssp' only; got mode={name!r}.")
        return Mode(name, 0 if name == "sync" else None)
    if staleness is None or staleness < 0:
        raise SolverError(f"Mode 'ssp' needs staleness, a number of steps >= 0; got {staleness!r}.")
    return Mode(name, staleness)


# -- between worker and server


@dataclass(frozen=True)
class Sender:
    """Who speaks: a worker's process is named by its incarnation, a number that no other process of the run has."""

    generation: int
    rank: int
    incarnation: int


@dataclass(frozen=True)
class Pull:
    """Asks for the values of pieces (indices; of one server) for the step `clock`; answered when they are there."""

    sender: Sender
    clock: int
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class Push:
    """Brings what the step `clock` adds to pieces of one server.

    Attributes:
        pieces: their indices.
        gradients: one for each; None stands for zeros. Of a kept piece: rank 0's values, None from other ranks.
        loss: of this step; policy `plateau` looks at it.
        squares: the sum of squares of this worker's whole gradient: needed with clip_gradients in ssp and async.
    """

    sender: Sender
    clock: int
    pieces: tuple[int, ...]
    gradients: tuple[Encoded | None, ...]
    loss: float = 0.0
    squares: float | None = None


@dataclass(frozen=True)
class Values:
    """Answers a pull."""

    generation: int
    clock: int
    pieces: tuple[int, ...]
    values: tuple[Dense, ...]

    @property
    def nbytes(self) -> int:
        """Payload bytes."""
        return sum(values.nbytes for values in self.values)


@dataclass(frozen=True)
class Counted:
    """Answers a push: received, counted now or later, once. `refused`: pieces whose gradient was not finite."""

    refused: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stale:
    """Answers whatever comes from another generation or a superseded incarnation. The worker stops what it does."""

    generation: int


# -- between servers


@dataclass(frozen=True)
class Squares:
    """A server's part of the square of the norm of the gradient of step `clock`, for clip_gradients in sync."""

    generation: int
    clock: int
    server: int
    squares: float


# -- checkpoints


@dataclass(frozen=True)
class PieceState:
    """A piece as a checkpoint holds it. `steps`: the updates that it has had."""

    value: FloatArray
    history: tuple[FloatArray, ...]
    steps: int


@dataclass(frozen=True)
class Part:
    """One server's part of a checkpoint: all its pieces, each after exactly the pushes below `clocks`.

    Attributes:
        generation, server: whose it is.
        cut: the checkpoint's number: the same on all servers; in sync negative for those that are due by the interval.
        clocks: steps done by rank.
        pieces: by index.
        rates: the learning rate policy's state and the smoothed loss, as `RateTable` wants it.
    """

    generation: int
    server: int
    cut: int
    clocks: tuple[int, ...]
    pieces: dict[int, PieceState]
    rates: dict[str, Any]

    def copied(self) -> Part:
        """The same with arrays of its own: those in the object store go when the store is full, or the node gone."""
        pieces = {
            index: replace(state, value=state.value.copy(), history=tuple(array.copy() for array in state.history))
            for index, state in self.pieces.items()
        }
        return replace(self, pieces=pieces)


@dataclass(frozen=True)
class Checkpoint:
    """What the coordinator knows of a checkpoint; the parts' contents stay with whoever holds `parts`.

    Attributes:
        number: 0 is the state that the run began with.
        iteration: of the solver.
        base: the iteration at which `assignment` began; `clocks` count from there.
        clocks: steps done by rank.
        assignment: who reads what.
        parts: by server: whatever `part_copied` brought (a Part, or a reference to one).
        counted: all that its values come from since the run's begin, by generation; what was undone is not in it.
    """

    number: int
    iteration: int
    base: int
    clocks: tuple[int, ...]
    assignment: Assignment
    parts: tuple[Any, ...]
    counted: tuple[CountedSteps, ...] = ()


@dataclass(frozen=True)
class Restore:
    """Puts a server into a generation.

    Attributes:
        generation: the new one.
        incarnations: by rank; their number is W.
        base: the iteration that clock 0 stands for.
        clocks: by rank, what `part` has counted.
        part: the server's part of the checkpoint.
    """

    generation: int
    incarnations: tuple[int, ...]
    base: int
    clocks: tuple[int, ...]
    part: Part
