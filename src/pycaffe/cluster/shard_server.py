"""A parameter server without its network: messages in, replies out. No actor, no thread, no clock.

The shell calls a method with each message and then carries out what `take` hands over:

    pull(message, ticket) ─→ … ─→ Reply(ticket, Values | Stale)     at once, or when others have pushed
    push(message) -> Counted | Stale                                at once
    add_squares(message)                                            from other servers, for clip_gradients in sync
    restore, fence, freeze, cut, release                            from the coordinator
    take() -> [Reply | SendSquares | SendPart, …]                   after each of them
    repeat() -> [SendSquares | SendPart, …]                         once more what nobody has confirmed: after silence

One rule makes all modes: a pull for step c is answered once each rank's pushes of steps <= c - staleness - 1 are
counted for that piece. In sync (staleness 0) the pushes of a step become one update, of their mean, summed in the order
of ranks; each piece keeps the value before it as well, for a worker that takes a dead one's place in the middle of a
step. In ssp and async each push is an update of its own, with the learning rate divided by W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.cluster.compression import NO_COMPRESSION, Compression
from pycaffe.cluster.messages import Counted, Mode, Part, Pull, Push, Restore, Squares, Stale, Values
from pycaffe.cluster.shards import ParameterInfo, Piece

__all__ = ["Reply", "SendPart", "SendSquares", "ServerConfig", "ShardServer"]


@dataclass(frozen=True)
class ServerConfig:
    """What a server is told once.

    Attributes:
        server, servers: its number, and how many there are.
        pieces: of all servers.
        parameters: by index, as pieces name them.
        solver: the SolverParameter.
        mode: of the run.
        compression: of what pulls carry.
        checkpoint_interval: in sync: every so many iterations, and at the end, all pieces are copied; 0 for never.
        max_iter: the iteration at which the run ends.
    """

    server: int
    servers: int
    pieces: tuple[Piece, ...]
    parameters: tuple[ParameterInfo, ...]
    solver: Any
    mode: Mode
    compression: Compression = NO_COMPRESSION
    checkpoint_interval: int = 0
    max_iter: int = 0


@dataclass(frozen=True)
class Reply:
    """Answer the pull that came with `ticket`."""

    ticket: Any
    answer: Values | Stale


@dataclass(frozen=True)
class SendSquares:
    """Give this to every other server."""

    squares: Squares


@dataclass(frozen=True)
class SendPart:
    """Give this to the coordinator; it is kept until `release`."""

    part: Part


class ShardServer:
    """The pieces of one server.

    Args:
        config: what does not change during a run.

    Attributes:
        generation: 0 until the first `restore`: everything is stale.
        refused: how many gradients of pieces were not finite, by rank, since the server began.

    Raises:
        SolverError: the solver's type, policy or another field is wrong.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.generation = 0
        self.refused: dict[int, int] = {}

    def take(self) -> list[Reply | SendSquares | SendPart]:
        """What there is to do since the last call, in order."""
        raise NotImplementedError

    def repeat(self) -> list[SendSquares | SendPart]:
        """What may have been lost on its way. Harmless to repeat."""
        raise NotImplementedError

    # -- from workers

    def pull(self, message: Pull, ticket: Any) -> None:
        """A worker asks for values; `ticket` comes back with the Reply. The arrays in it never change afterwards."""
        raise NotImplementedError

    def push(self, message: Push) -> Counted | Stale:
        """A worker brings gradients. One that was counted for a piece already is dropped there."""
        raise NotImplementedError

    # -- from servers

    def add_squares(self, message: Squares) -> None:
        """Another server's part of a norm."""
        raise NotImplementedError

    # -- from the coordinator

    def restore(self, message: Restore) -> None:
        """Begins a generation; one that is not newer than the present is ignored. All waiting pulls become stale."""
        raise NotImplementedError

    def fence(self, generation: int, rank: int, incarnation: int) -> int | None:
        """From now on only this incarnation speaks for the rank.

        Returns:
            The first step of the rank that not every piece here has counted: the new one's first step is the least of
            all servers'. None if the generation is another.
        """
        raise NotImplementedError

    def freeze(self, generation: int, cut: int) -> tuple[int, ...] | None:
        """First half of a cut: holds back whatever is newer than what was seen so far.

        Returns:
            By rank, how many steps some piece here has counted. None if the generation is another.
        """
        raise NotImplementedError

    def cut(self, generation: int, cut: int, clocks: Sequence[int]) -> None:
        """Second half: each piece is copied when it has counted all pushes below `clocks`, and before any newer one.

        When all are copied, SendPart follows.
        """
        raise NotImplementedError

    def release(self, generation: int, cut: int) -> None:
        """The coordinator has that part."""
        raise NotImplementedError
