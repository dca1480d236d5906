"""The state of a run on a cluster: events in, commands out. No actor, no thread, no clock.

It starts servers and workers, replaces those that die, takes checkpoints, lets workers join and leave, and knows when
the run ends. It is not on the way of a step: workers and servers speak with each other alone.

    generation g: the servers hold a checkpoint's parts ──restored──→ workers run
         ▲                                                            │
         ├── a server died: generation g + 1 from the last checkpoint ┤
         └── a worker joined or left: a checkpoint, then g + 1 from it┘
    A worker that dies within a generation: all servers hear of its successor (Fence), then that begins at the first
    step that not all pieces have counted.

A worker's process is named by its incarnation, a server's likewise: numbers that are never used twice. A rank is a
worker's place within a generation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.cluster.commands import Command
from pycaffe.cluster.messages import Checkpoint, Mode

__all__ = ["Coordinator", "RunConfig"]


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


class Coordinator:
    """The books of a run. Each event adds commands, which `take` hands over in the order to carry them out.

    Commands and answers may be lost, late, or come twice; `tick` commands again what was not answered.

    Args:
        config: of the run.
        initial: the state to begin with, its `parts` by server; W of its assignment may differ from `config.workers`.

    Attributes:
        generation: how often servers were given a state.
        checkpoint: the last complete one.
        restarts: how many processes were started in place of dead ones.
        finished: no event changes anything any more.
    """

    def __init__(self, config: RunConfig, initial: Checkpoint) -> None:
        self.config = config
        self.checkpoint = initial
        self.generation = 0
        self.restarts = 0
        self.finished = False

    def take(self) -> list[Command]:
        """The commands since the last call."""
        raise NotImplementedError

    # -- from the user

    def start(self) -> None:
        """Begins: starts all processes."""
        raise NotImplementedError

    def join(self) -> None:
        """One more worker, once it is ready; nothing where there are `max_workers`."""
        raise NotImplementedError

    def leave(self, rank: int | None = None) -> None:
        """One worker less, by default that of the highest rank; nothing where there are `min_workers`."""
        raise NotImplementedError

    def checkpoint_now(self) -> None:
        """A checkpoint as soon as possible."""
        raise NotImplementedError

    def stop(self) -> None:
        """A checkpoint as soon as possible, then Finish."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """Something happened that would happen again, such as an error of the net: Fail follows."""
        raise NotImplementedError

    def tick(self) -> None:
        """Some time has passed."""
        raise NotImplementedError

    # -- from servers

    def server_ready(self, server: int, incarnation: int) -> None:
        """Its process runs."""
        raise NotImplementedError

    def server_died(self, server: int, incarnation: int) -> None:
        """Its process is gone, and what it held."""
        raise NotImplementedError

    def restored(self, server: int, generation: int) -> None:
        """Answers RestoreServer."""
        raise NotImplementedError

    def fenced(self, server: int, generation: int, rank: int, incarnation: int, clock: int | None) -> None:
        """Answers Fence."""
        raise NotImplementedError

    def frozen(self, server: int, generation: int, cut: int, clocks: Sequence[int] | None) -> None:
        """Answers Freeze."""
        raise NotImplementedError

    def part_copied(self, server: int, generation: int, cut: int, clocks: Sequence[int], part: Any) -> None:
        """A server's part of a checkpoint is here; `part` is kept as it is."""
        raise NotImplementedError

    # -- from workers

    def worker_ready(self, incarnation: int) -> None:
        """Its process has loaded the net."""
        raise NotImplementedError

    def worker_died(self, incarnation: int) -> None:
        """Its process is gone."""
        raise NotImplementedError

    def worker_cannot_start(self, incarnation: int) -> None:
        """There is no room for this process. The run goes on with fewer workers where `min_workers` allows it."""
        raise NotImplementedError

    def progress(self, incarnation: int, generation: int, clock: int) -> None:
        """A worker has done its steps below `clock`: their pushes are answered."""
        raise NotImplementedError
