"""Shard servers driven by hand: whole parameters in, whole parameters out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.cluster.protocol.checkpoint_parts import join_parts, split_into_parts
from pycaffe.cluster.protocol.compression import NO_COMPRESSION, Compression, Dense, Encoded, GradientEncoder, decode
from pycaffe.cluster.protocol.messages import (
    Counted,
    Mode,
    Part,
    Pull,
    Push,
    Restore,
    Sender,
    Stale,
    Values,
    parse_mode,
)
from pycaffe.cluster.protocol.shard_server import Reply, SendPart, SendSquares, ServerConfig, ShardServer
from pycaffe.cluster.protocol.shards import ParameterInfo, cut_into_pieces
from pycaffe.solvers.update_rules import update_rule_class


class ServerGroup:
    """Servers of generation 1; worker of rank r is incarnation 10 + r.

    Args:
        param: the SolverParameter.
        values: of the parameters.
        mode: "sync", "async" or "ssp 2".
    """

    def __init__(
        self,
        param: Any,
        values: Sequence[np.ndarray],
        *,
        mode: str = "sync",
        workers: int = 2,
        servers: int = 2,
        infos: Sequence[ParameterInfo] | None = None,
        compression: Compression = NO_COMPRESSION,
        interval: int = 0,
    ) -> None:
        name, *staleness = mode.split()
        self.sizes = [value.size for value in values]
        self.workers = workers
        self.pieces = cut_into_pieces(self.sizes, servers)
        self.infos = infos or [ParameterInfo(f"p{index}", size) for index, size in enumerate(self.sizes)]
        self.mode: Mode = parse_mode(name, *map(int, staleness))
        self.servers = [
            ShardServer(
                ServerConfig(
                    server, servers, tuple(self.pieces), tuple(self.infos), param, self.mode, compression,
                    interval, param.max_iter or 1000,
                )
            )
            for server in range(servers)
        ]  # fmt: skip
        self.encoders = [GradientEncoder(compression) for _ in range(workers)]
        self.answers: dict[Any, Any] = {}
        self.copied: dict[tuple[int, int], Part] = {}
        self.bytes_pushed = self.bytes_pulled = 0
        histories = [[np.zeros_like(value) for value in values]] * update_rule_class(param.type)(param).num_histories
        self.restore(1, split_into_parts(values, histories, self.pieces, workers=workers))

    def restore(self, generation: int, parts: Sequence[Part], clocks: tuple[int, ...] | None = None) -> None:
        for server, part in zip(self.servers, parts):
            incarnations = tuple(10 + rank for rank in range(self.workers))
            server.restore(Restore(generation, incarnations, 0, clocks or (0,) * self.workers, part))
        self.generation = generation
        self.obey()

    def sender(self, rank: int) -> Sender:
        return Sender(self.generation, rank, 10 + rank)

    def obey(self) -> None:
        commands = [command for server in self.servers for command in server.take()]
        for command in commands:
            if isinstance(command, Reply):
                self.answers[command.ticket] = command.answer
            elif isinstance(command, SendSquares):
                for server in self.servers:
                    if server.config.server != command.squares.server:
                        server.add_squares(command.squares)
            else:
                assert isinstance(command, SendPart)
                self.copied[command.part.cut, command.part.server] = command.part
        if commands:
            self.obey()

    def pull(self, rank: int, clock: int, sender: Sender | None = None) -> list[np.ndarray] | Stale | None:
        """The parameters; None where the answer has to wait: look at `pulled` later."""
        for server in self.servers:
            pieces = tuple(piece.index for piece in self.pieces if piece.server == server.config.server)
            server.pull(Pull(sender or self.sender(rank), clock, pieces), (rank, clock, server.config.server))
        self.obey()
        return self.pulled(rank, clock)

    def pulled(self, rank: int, clock: int) -> list[np.ndarray] | Stale | None:
        answers = [self.answers.get((rank, clock, server)) for server in range(len(self.servers))]
        if any(answer is None for answer in answers):
            return None
        whole = [np.zeros(size, np.float32) for size in self.sizes]
        for answer in answers:
            if isinstance(answer, Stale):
                return answer
            assert isinstance(answer, Values)
            self.bytes_pulled += answer.nbytes
            for index, values in zip(answer.pieces, answer.values):
                piece = self.pieces[index]
                whole[piece.parameter][piece.start : piece.stop] = decode(values)
        return whole

    def push(
        self,
        rank: int,
        clock: int,
        gradients: Sequence[np.ndarray | None],
        *,
        sender: Sender | None = None,
        only: int | None = None,
        loss: float = 0.0,
        squares: float | None = None,
    ) -> list[Counted | Stale]:
        """Pushes to all servers, or to one `only`."""
        answers = []
        for server in self.servers:
            if only not in (None, server.config.server):
                continue
            pieces = [piece for piece in self.pieces if piece.server == server.config.server]
            encoded: list[Encoded | None] = []
            for piece in pieces:
                gradient = gradients[piece.parameter]
                if gradient is None:
                    encoded.append(None)
                elif self.infos[piece.parameter].kept:
                    encoded.append(Dense(gradient[piece.start : piece.stop]))
                else:
                    encoded.append(self.encoders[rank].encode(piece.index, gradient[piece.start : piece.stop]))
            self.bytes_pushed += sum(one.nbytes for one in encoded if one is not None)
            indices = tuple(piece.index for piece in pieces)
            message = Push(sender or self.sender(rank), clock, indices, tuple(encoded), loss, squares)
            answers.append(server.push(message))
        self.obey()
        return answers

    def state(self, cut: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
        """Values and histories of a checkpoint that all servers have copied."""
        return join_parts([self.copied[cut, server] for server in range(len(self.servers))], self.pieces, self.sizes)
