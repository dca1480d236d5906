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

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.cluster.protocol.compression import NO_COMPRESSION, Compression, NonFinite
from pycaffe.cluster.protocol.copying import Copying
from pycaffe.cluster.protocol.messages import (
    Counted,
    Mode,
    Part,
    PieceState,
    Pull,
    Push,
    Restore,
    Sender,
    Squares,
    Stale,
    Values,
)
from pycaffe.cluster.protocol.rate_table import RateTable
from pycaffe.cluster.protocol.served_piece import Held, ServedPiece
from pycaffe.cluster.protocol.shards import ParameterInfo, Piece, pieces_of_server
from pycaffe.solvers.update_rules import UpdateStep, clip_scale, sum_of_squares, update_rule_class

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
        self._sync = config.mode.name == "sync"
        self._clips = config.solver.clip_gradients >= 0
        self._rule = update_rule_class(config.solver.type)(config.solver)
        self._rates = RateTable(config.solver, 1)
        self._pieces: dict[int, ServedPiece] = {}
        self._incarnations: list[int] = []
        self._base = 0
        self._losses: dict[tuple[int, int], float] = {}  # in sync: of steps that are not all updates, by (clock, rank)
        self._loss_clocks: list[int] = []  # in ssp and async: by rank, the step whose loss comes next
        self._waiting: list[tuple[Pull, Any]] = []
        self._norms: dict[int, dict[int, float]] = {}  # in sync with clipping: by clock and server
        self._last_squares: Squares | None = None
        self._copying = Copying()
        self._commands: list[Reply | SendSquares | SendPart] = []

    def take(self) -> list[Reply | SendSquares | SendPart]:
        """What there is to do since the last call, in order."""
        commands, self._commands = self._commands, []
        return commands

    def repeat(self) -> list[SendSquares | SendPart]:
        """What may have been lost on its way. Harmless to repeat."""
        squares = [] if self._last_squares is None else [SendSquares(self._last_squares)]
        return [*squares, *(SendPart(part) for part in self._copying.parts.values())]

    # -- from workers

    def pull(self, message: Pull, ticket: Any) -> None:
        """A worker asks for values; `ticket` comes back with the Reply. The arrays in it never change afterwards."""
        if not self._answer(message, ticket):
            self._waiting.append((message, ticket))

    def push(self, message: Push) -> Counted | Stale:
        """A worker brings gradients. One that was counted for a piece already is dropped there."""
        sender = message.sender
        if self._is_stale(sender):
            return Stale(self.generation)
        refused = []
        for index, gradient in zip(message.pieces, message.gradients):
            piece = self._pieces[index]
            if message.clock < piece.counts[sender.rank]:
                continue
            if self._cannot_clip(piece, message.squares):
                gradient = NonFinite()  # what is finite of it cannot be clipped, either
            held = Held(sender.incarnation, gradient, message.loss, message.squares)
            if self._may_count(piece, sender.rank, message.clock):
                taken = self._count(piece, sender.rank, message.clock, held)
            else:
                piece.held.setdefault((sender.rank, message.clock), held)
                taken = piece.takes(sender.rank, gradient)  # the answer goes out before it is counted
            if not taken:
                refused.append(index)
        self._go_on(self._pieces[index] for index in message.pieces)
        return Counted(tuple(refused))

    # -- from servers

    def add_squares(self, message: Squares) -> None:
        """Another server's part of a norm."""
        if message.generation == self.generation:
            self._norms.setdefault(message.clock, {})[message.server] = message.squares
            self._go_on(self._pieces.values())

    # -- from the coordinator

    def restore(self, message: Restore) -> None:
        """Begins a generation; one that is not newer than the present is ignored. All waiting pulls become stale."""
        if message.generation <= self.generation:
            return
        self.generation = message.generation
        self._incarnations = list(message.incarnations)
        self._base = message.base
        self._pieces = {
            piece.index: ServedPiece(
                piece,
                self.config.parameters[piece.parameter],
                self._rule,
                message.part.pieces[piece.index],
                message.clocks,
            )
            for piece in pieces_of_server(self.config.pieces, self.config.server)
        }
        # In sync it hears of a step once, with the mean of all workers' losses.
        self._rates = RateTable(self.config.solver, 1 if self._sync else len(message.clocks))
        self._rates.restore(message.part.rates)
        self._losses = {}
        self._loss_clocks = list(message.clocks)
        self._norms, self._last_squares = {}, None
        self._copying = Copying()
        self._answer_waiting()

    def fence(self, generation: int, rank: int, incarnation: int) -> int | None:
        """From now on only this incarnation speaks for the rank.

        Returns:
            The first step of the rank that not every piece here has counted: the new one's first step is the least of
            all servers'. None if the generation is another, or the rank has a newer incarnation.
        """
        if generation != self.generation or incarnation < self._incarnations[rank]:
            return None
        self._incarnations[rank] = incarnation
        for piece in self._pieces.values():
            piece.forget_rank(rank, incarnation)
        self._answer_waiting()
        return min(piece.counts[rank] for piece in self._pieces.values())

    def freeze(self, generation: int, cut: int) -> tuple[int, ...] | None:
        """First half of a cut: holds back whatever is newer than what was seen so far.

        Returns:
            By rank, how many steps some piece here has counted. None if the generation is another, or the cut is over.
        """
        if generation != self.generation:
            return None
        counts = zip(*(piece.counts for piece in self._pieces.values()))
        return self._copying.freeze(cut, tuple(max(by_rank) for by_rank in counts))

    def cut(self, generation: int, cut: int, clocks: Sequence[int]) -> None:
        """Second half: each piece is copied when it has counted all pushes below `clocks`, and before any newer one.

        When all are copied, SendPart follows.
        """
        if generation == self.generation and self._copying.begin(cut, tuple(clocks)):
            self._go_on(self._pieces.values())

    def release(self, generation: int, cut: int) -> None:
        """The coordinator has that part."""
        if generation == self.generation:
            self._copying.parts.pop(cut, None)

    # -- inside: counting

    def _is_stale(self, sender: Sender) -> bool:
        return sender.generation != self.generation or sender.incarnation != self._incarnations[sender.rank]

    def _may_count(self, piece: ServedPiece, rank: int, clock: int) -> bool:
        """Whether a push is the next of its rank, and no cut holds it back."""
        in_turn = clock == piece.counts[rank] and (not self._sync or clock == piece.version)
        return in_turn and self._copying.admits(piece.piece.index, rank, clock)

    def _count(self, piece: ServedPiece, rank: int, clock: int, held: Held) -> bool:
        """Counts a push for a piece. Returns False where it is refused."""
        if self._sync:
            if not self._rates.knows(self._base + clock):
                self._losses[clock, rank] = held.loss
            finite = piece.add(rank, clock, held.gradient)
        else:
            finite = self._apply(piece, rank, clock, held)
        if not finite:
            self.refused[rank] = self.refused.get(rank, 0) + 1
        return finite

    def _apply(self, piece: ServedPiece, rank: int, clock: int, held: Held) -> bool:
        """In ssp and async: one push, one update. W of them together go as far as one step, so the rate is shared."""
        if clock == self._loss_clocks[rank]:
            self._loss_clocks[rank] += 1
            self._rates.add_losses([held.loss])
        workers = len(self._incarnations)
        # A few pushes come after the last iteration, where policies such as poly have no rate.
        iteration = min(self._base + sum(piece.counts) // workers, self.config.max_iter - 1)
        scale = 1.0
        if self._clips and held.squares is not None and math.isfinite(held.squares):
            scale = clip_scale(held.squares, self.config.solver.clip_gradients)
        step = self._step(piece, self._rates.at(iteration) / workers, piece.steps, scale)
        return piece.apply(rank, clock, held.gradient, step)

    def _cannot_clip(self, piece: ServedPiece, squares: float | None) -> bool:
        """In ssp and async: whether a push is one of which there is no norm."""
        return self._clips and not piece.info.kept and squares is not None and not math.isfinite(squares)

    def _step_on(self, piece: ServedPiece) -> bool:
        """In sync: makes a complete step an update. False where the norm of the whole gradient is not known yet."""
        clock = piece.version
        scale = 1.0
        if self._clips:
            norms = self._norms.get(clock, {})
            if len(norms) < self.config.servers:
                return False
            squares = sum(norms[server] for server in range(self.config.servers))
            scale = clip_scale(squares, self.config.solver.clip_gradients)
        iteration = self._base + clock
        if not self._rates.knows(iteration):
            losses = [self._losses.pop((clock, rank)) for rank in range(len(self._incarnations))]
            finite = [loss for loss in losses if math.isfinite(loss)]
            self._rates.add_losses([sum(finite) / len(finite)] if finite else [])
            self._norms.pop(clock - 1, None)
        piece.step_on(self._step(piece, self._rates.at(iteration), iteration, scale))
        interval, reached = self.config.checkpoint_interval, iteration + 1
        if reached == self.config.max_iter or (interval and reached % interval == 0):
            self._copying.scheduled[piece.piece.index] = piece.copy()
            if len(self._copying.scheduled) == len(self._pieces):
                part = self._part(-piece.version, piece.counts, self._copying.scheduled)
                self._copying.finish_scheduled(part)
                self._commands.append(SendPart(part))
        return True

    def _step(self, piece: ServedPiece, rate: float, iteration: int, scale: float) -> UpdateStep:
        solver = self.config.solver
        return UpdateStep(
            rate=rate * piece.info.lr_mult,
            iteration=iteration,
            decay=solver.weight_decay * piece.info.decay_mult,
            regularization=solver.regularization_type,
            clip_scale=scale,
            iter_size=solver.iter_size,
        )

    # -- inside: what a message makes possible

    def _go_on(self, pieces: Iterable[ServedPiece]) -> None:
        for piece in pieces:
            self._go_on_with(piece)
        if self._sync and self._clips and all(piece.complete for piece in self._pieces.values()):
            self._add_own_squares()
        if self._copying.clocks is not None and len(self._copying.copies) == len(self._pieces):
            part = self._part(self._copying.number, self._copying.clocks, self._copying.copies)
            self._copying.finish(part)
            self._commands.append(SendPart(part))
        self._answer_waiting()

    def _go_on_with(self, piece: ServedPiece) -> None:
        """Updates, copies and counts what is held, as long as one makes the next possible."""
        moved = True
        while moved:
            moved = piece.complete and self._step_on(piece)
            if not piece.complete and self._copying.is_due(piece.piece.index, piece.counts):
                self._copying.copies[piece.piece.index] = piece.copy()
            for rank, clock in sorted(piece.held):
                if self._may_count(piece, rank, clock):
                    self._count(piece, rank, clock, piece.held.pop((rank, clock)))
                    moved = True

    def _add_own_squares(self) -> None:
        """Tells the others this server's part of the norm, and goes on if it was the last."""
        clock = next(iter(self._pieces.values())).version
        norms = self._norms.setdefault(clock, {})
        if self.config.server not in norms:
            gradients = [piece.gradient for piece in self._pieces.values() if not piece.info.kept]
            squares = sum(sum_of_squares(gradient) for gradient in gradients if gradient is not None)
            norms[self.config.server] = squares
            self._last_squares = Squares(self.generation, clock, self.config.server, squares)
            self._commands.append(SendSquares(self._last_squares))
        if len(norms) == self.config.servers:
            for piece in self._pieces.values():
                self._go_on_with(piece)

    def _part(self, cut: int, clocks: Sequence[int], pieces: dict[int, PieceState]) -> Part:
        return Part(self.generation, self.config.server, cut, tuple(clocks), pieces, self._rates.state())

    # -- inside: pulls

    def _answer_waiting(self) -> None:
        self._waiting = [(message, ticket) for message, ticket in self._waiting if not self._answer(message, ticket)]

    def _answer(self, message: Pull, ticket: Any) -> bool:
        """Answers a pull if that is possible now."""
        if self._is_stale(message.sender):
            self._commands.append(Reply(ticket, Stale(self.generation)))
            return True
        pieces = [self._pieces[index] for index in message.pieces]
        if not all(self._may_see(piece, message.clock) for piece in pieces):
            return False
        if self._sync:
            values = [piece.value_at(message.clock, self.config.compression) for piece in pieces]
        else:
            values = [piece.value(self.config.compression) for piece in pieces]
        present = tuple(value for value in values if value is not None)
        if len(present) < len(values):  # of a step that is long over; nobody whom the coordinator let begin asks for it
            self._commands.append(Reply(ticket, Stale(self.generation)))
        else:
            self._commands.append(Reply(ticket, Values(self.generation, message.clock, message.pieces, present)))
        return True

    def _may_see(self, piece: ServedPiece, clock: int) -> bool:
        if self._sync:
            return piece.version >= clock
        staleness = self.config.mode.staleness
        return staleness is None or min(piece.counts) >= clock - staleness
