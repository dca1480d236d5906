"""What the coordinator keeps of servers, workers and checkpoints under way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pycaffe.cluster.protocol.messages import Checkpoint, Mode
from pycaffe.errors import SolverError

__all__ = ["CutState", "RunConfig", "ServerState", "WorkerState", "begun_with"]


@dataclass(frozen=True)
class RunConfig:
    """What does not change during a run.

    Attributes:
        workers, servers: how many to start with.
        mode: of the run.
        max_iter: the iteration at which the run ends.
        checkpoint_interval: iterations between checkpoints; 0 for none but the last.
        min_workers, max_workers: bounds of joining and leaving; None for `workers`.
        max_deaths: so many deaths in a row without a checkpoint or a step in between end the run.
    """

    workers: int
    servers: int
    mode: Mode
    max_iter: int
    checkpoint_interval: int = 0
    min_workers: int | None = None
    max_workers: int | None = None
    max_deaths: int = 10

    def __post_init__(self) -> None:
        least, most = self.bounds
        if not 1 <= least <= self.workers <= most:
            raise SolverError(
                "min_workers, workers and max_workers should ascend from 1; got "
                f"min_workers={self.min_workers!r}, workers={self.workers!r}, max_workers={self.max_workers!r}."
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the most workers."""
        least = self.workers if self.min_workers is None else self.min_workers
        return least, self.workers if self.max_workers is None else self.max_workers


@dataclass
class ServerState:
    """A server's process. `restored`: the generation whose state it holds."""

    incarnation: int
    ready: bool = False
    restored: int = 0


@dataclass
class WorkerState:
    """A worker's place, and the process that has it.

    Attributes:
        incarnation: the process.
        ready: it has loaded the net.
        needs_fence: servers have not heard of this process with the generation's begin.
        fenced: what each server answered to Fence.
        clock: steps done in this generation; None where it does not run in it.
        leaves: it ends with the next checkpoint.
        lacks_room: StartWorker goes out again with the next tick.
    """

    incarnation: int
    ready: bool = False
    needs_fence: bool = False
    fenced: dict[int, int] = field(default_factory=dict)
    clock: int | None = None
    leaves: bool = False
    lacks_room: bool = False


@dataclass
class CutState:
    """A checkpoint under way: first what servers have seen, then where it goes."""

    number: int
    frozen: dict[int, tuple[int, ...]] = field(default_factory=dict)
    clocks: tuple[int, ...] | None = None


def begun_with(checkpoint: Checkpoint, workers: int) -> Checkpoint:
    """A checkpoint as a generation of so many workers begins from it.

    With as many workers as it was taken with everything goes on; else who reads what is dealt out anew, and clocks
    count from there.
    """
    if workers == len(checkpoint.clocks):
        return checkpoint
    return replace(
        checkpoint,
        base=checkpoint.iteration,
        clocks=(0,) * workers,
        assignment=checkpoint.assignment.after(checkpoint.clocks, workers),
    )
