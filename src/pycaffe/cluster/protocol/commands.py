"""What the coordinator tells the shell to do. Those with an answer are commanded again until it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.protocol.messages import Checkpoint

__all__ = [
    "Acknowledge",
    "Command",
    "CopyAt",
    "Fail",
    "Fence",
    "Finish",
    "Freeze",
    "RestoreServer",
    "RunWorker",
    "StartServer",
    "StartWorker",
    "StopWorker",
    "Taken",
]


@dataclass(frozen=True)
class StartServer:
    """Start a server's process; answer server_ready(server, incarnation), or server_died."""

    server: int
    incarnation: int


@dataclass(frozen=True)
class StartWorker:
    """Start a worker's process, which loads its net; answer worker_ready(incarnation), or worker_died.

    `rank`: the place it will probably have, for choosing its device.
    """

    incarnation: int
    rank: int


@dataclass(frozen=True)
class StopWorker:
    """End a worker's process, whatever it does. No worker_died is due for it."""

    incarnation: int


@dataclass(frozen=True)
class RestoreServer:
    """`ShardServer.restore` with `part` of that server; answer restored."""

    server: int
    incarnation: int
    generation: int
    incarnations: tuple[int, ...]
    base: int
    clocks: tuple[int, ...]
    part: Any


@dataclass(frozen=True)
class RunWorker:
    """Let a worker begin steps at `clock`, whatever it did before; it reports progress and stops before `end`.

    Once in a generation: a repeat, or one of an older generation than the present, is to be ignored. The answer is the
    first progress(incarnation, generation, clock), before the first step.

    Attributes:
        incarnation: which process.
        generation, rank: how it names itself to servers.
        base: the iteration that clock 0 stands for.
        clock: its first step.
        end: the step before which it stops; None: it goes on until it is stopped.
        assignment: which batches it reads.
    """

    incarnation: int
    generation: int
    rank: int
    base: int
    clock: int
    end: int | None
    assignment: Assignment


@dataclass(frozen=True)
class Fence:
    """`ShardServer.fence`; answer fenced with what it returned."""

    server: int
    server_incarnation: int
    generation: int
    rank: int
    incarnation: int


@dataclass(frozen=True)
class Freeze:
    """`ShardServer.freeze`; answer frozen with what it returned."""

    server: int
    server_incarnation: int
    generation: int
    cut: int


@dataclass(frozen=True)
class CopyAt:
    """`ShardServer.cut`."""

    server: int
    server_incarnation: int
    generation: int
    cut: int
    clocks: tuple[int, ...]


@dataclass(frozen=True)
class Acknowledge:
    """`ShardServer.release`: the part came."""

    server: int
    server_incarnation: int
    generation: int
    cut: int


@dataclass(frozen=True)
class Taken:
    """A checkpoint is complete: keep it, write it as a snapshot if it is time. Earlier ones are needed no more."""

    checkpoint: Checkpoint


@dataclass(frozen=True)
class Finish:
    """The run is over and `checkpoint` is its result. End all processes."""

    checkpoint: Checkpoint


@dataclass(frozen=True)
class Fail:
    """The run cannot go on."""

    error: BaseException


Command = (
    StartServer | StartWorker | StopWorker | RestoreServer | RunWorker | Fence | Freeze | CopyAt | Acknowledge
    | Taken | Finish | Fail
)  # fmt: skip
