"""A parameter server's actor: a ShardServer with Ray around it.

Messages come in as calls on one event loop, so none of them meets another. A pull waits as a future; what a server has
to say to the process that began the run (parts of checkpoints) waits until that asks.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pycaffe.cluster.protocol.messages import Part, Pull, Push, Restore, Squares
from pycaffe.cluster.protocol.shard_server import Reply, SendPart, SendSquares, ServerConfig, ShardServer
from pycaffe.cluster.training.exchange import Answer
from pycaffe.layers._torch import torch
from pycaffe.proto.schema import SolverParameter
from pycaffe.threads import set_num_threads

__all__ = ["ServerActor"]

REPEAT_SECONDS = 1.0  # after so long without a word, what nobody confirmed is said again
TELL_SECONDS = 10.0  # how long a question for news waits for some


class ServerActor:
    """Runs as an actor with an event loop.

    Args:
        config: of the server, without the solver.
        solver: the SolverParameter, serialized: protobuf's own pickles do not travel by value.
        threads: for its arithmetic.
    """

    def __init__(self, config: ServerConfig, solver: bytes, threads: int) -> None:
        set_num_threads(threads)
        torch.set_num_threads(threads)  # loads it
        self._server = ShardServer(replace(config, solver=SolverParameter.FromString(solver)))
        self._peers: Sequence[Any] = ()
        self._parts: list[Part] = []
        self._news = asyncio.Event()
        self._heard = True
        self._repeating: asyncio.Task[None] | None = None

    # -- workers

    async def exchange(self, push: Push | None, pull: Pull | None) -> Answer:
        """A worker's gradients, and its question for values, which is answered when they are there."""
        self._heard = True
        counted = self._server.push(push) if push is not None else None
        waiting: asyncio.Future[Any] | None = None
        if pull is not None:
            waiting = asyncio.get_running_loop().create_future()
            self._server.pull(pull, waiting)
        self._carry_out()
        return counted, (await waiting if waiting is not None else None)

    # -- servers

    async def add_squares(self, message: Squares) -> None:
        """Another server's part of a norm."""
        self._server.add_squares(message)
        self._carry_out()

    # -- the process that began the run

    async def ready(self) -> tuple[str, int]:
        """Answers once the process runs: with its node and pid."""
        return socket.gethostname(), os.getpid()

    async def restore(self, message: Restore, peers: Sequence[Any]) -> int:
        """Begins a generation; returns its number."""
        self._peers = peers
        if self._repeating is None:
            self._repeating = asyncio.get_running_loop().create_task(self._repeat())
        self._server.restore(message)
        self._carry_out()
        return message.generation

    async def fence(self, generation: int, rank: int, incarnation: int) -> int | None:
        """As ShardServer."""
        clock = self._server.fence(generation, rank, incarnation)
        self._carry_out()
        return clock

    async def freeze(self, generation: int, cut: int) -> tuple[int, ...] | None:
        """As ShardServer."""
        clocks = self._server.freeze(generation, cut)
        self._carry_out()
        return clocks

    async def cut(self, generation: int, cut: int, clocks: Sequence[int]) -> None:
        """As ShardServer."""
        self._server.cut(generation, cut, clocks)
        self._carry_out()

    async def release(self, generation: int, cut: int) -> None:
        """As ShardServer."""
        self._server.release(generation, cut)
        self._carry_out()

    async def news(self) -> list[Part]:
        """Parts of checkpoints, as soon as there are any; none after a while."""
        try:
            await asyncio.wait_for(self._news.wait(), TELL_SECONDS)
        except asyncio.TimeoutError:
            return []
        self._news.clear()
        parts, self._parts = self._parts, []
        return parts

    # -- inside

    def _carry_out(self) -> None:
        self._do(self._server.take())

    def _do(self, commands: Sequence[Reply | SendPart | SendSquares]) -> None:
        for command in commands:
            if isinstance(command, Reply):
                if not command.ticket.done():
                    command.ticket.set_result(command.answer)
            elif isinstance(command, SendSquares):
                for index, peer in enumerate(self._peers):
                    if index != self._server.config.server:
                        peer.add_squares.remote(command.squares)
            else:
                self._parts.append(command.part)
                self._news.set()

    async def _repeat(self) -> None:
        while True:
            await asyncio.sleep(REPEAT_SECONDS)
            if not self._heard:
                self._do(self._server.repeat())
            self._heard = False
