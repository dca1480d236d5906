"""A worker's side of the protocol: gradients out, values in, beside the backward pass.

    backward of the last layers ─→ send(bucket 0) ─┐
    backward of those below     ─→ send(bucket 1) ─┼─ sending thread: encode ─→ link: Push of this step and Pull of the
    ...                                            ┘                            next in one message to each server
    finish(): waits for the answers ─→ the values of the next step are in the net

A bucket is some layers that follow each other. All gradients of a step are on their way before the first value of the
next is looked at, so the values never change under a backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pycaffe.blob import FloatArray
from pycaffe.cluster.protocol.compression import Compression, Encoded, GradientEncoder, decode
from pycaffe.cluster.protocol.messages import Counted, Mode, Pull, Push, Sender, Stale, Values
from pycaffe.cluster.protocol.shards import ParameterInfo, Piece, buckets_of
from pycaffe.graph import Graph, Parameter
from pycaffe.solvers.update_rules import sum_of_squares

__all__ = ["Answer", "Exchange", "Interrupted", "Link", "Plan", "Traffic", "describe_parameters"]

BUCKETS = 4  # a step's gradients travel in about so many messages to each server
SMALLEST = (
    1 << 18
)  # elements of a message: a call of an actor costs a millisecond (benchmarks/scaling.py), as 1 MB does

Answer = tuple[Counted | Stale | None, Values | Stale | None]


class Interrupted(Exception):
    """The worker is to stop what it does: it was superseded, or a server is gone. The coordinator knows better."""


class Link(Protocol):
    """How messages come to the servers. Both methods may be called on any thread."""

    def send(self, server: int, push: Push | None, pull: Pull | None) -> Any:
        """Sets a message off; returns what `wait` takes."""

    def wait(self, tickets: Sequence[Any]) -> list[Answer]:
        """Waits for the answers. Raises Interrupted."""


@dataclass(frozen=True)
class Plan:
    """What all workers and servers know of a run.

    Attributes:
        parameters: those of the net; of shared ones the owner.
        layers: of each parameter, the index of its layer.
        pieces: of the parameters.
        mode: of the run.
        compression: of gradients.
        clips: whether gradients are clipped.
        end: the iteration at which the run ends.
    """

    parameters: tuple[ParameterInfo, ...]
    layers: tuple[int, ...]
    pieces: tuple[Piece, ...]
    mode: Mode
    compression: Compression
    clips: bool
    end: int


@dataclass(frozen=True)
class Traffic:
    """Payload bytes of a step, and how many pieces' gradients servers refused."""

    pushed: int = 0
    pulled: int = 0
    refused: int = 0


def _owners(graph: Graph) -> list[Parameter]:
    """The parameters that a solver knows: of shared ones the owner."""
    return [parameter for parameter in graph.parameters if parameter.owner is None]


def describe_parameters(graph: Graph) -> tuple[list[ParameterInfo], list[int]]:
    """What servers know of a net's parameters, and the layer of each."""
    found, layers = [], []
    for parameter in _owners(graph):
        node = graph.nodes[parameter.layer]
        kept = parameter.lr_mult == 0 and node.layer.forward_changes_blobs
        name = f"{node.name}[{parameter.index}]"
        info = ParameterInfo(name, parameter.blob.count, parameter.lr_mult, parameter.decay_mult, kept)
        found.append(info)
        layers.append(parameter.layer)
    return found, layers


class Exchange:
    """One worker's gradients and values.

    Args:
        graph: of the net that is trained.
        plan: of the run.

    Attributes:
        buckets: for each, the index of its first layer: once backward has come down to it, `send` may be called.
    """

    def __init__(self, graph: Graph, plan: Plan) -> None:
        self._plan = plan
        self._blobs = [parameter.blob for parameter in _owners(graph)]
        smallest = max(SMALLEST, sum(piece.size for piece in plan.pieces) // BUCKETS)
        self._buckets = buckets_of(plan.pieces, plan.layers, smallest)
        self.buckets = [min(plan.layers[piece.parameter] for piece in bucket) for bucket in self._buckets]
        self._encoder = GradientEncoder(plan.compression)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pycaffe-push")
        self._under_way: list[Future[tuple[int, list[Any]]]] = []

    def begin(self, link: Link, sender: Sender, clock: int) -> Traffic:
        """Takes up another place in the run: all values for the step `clock` are in the net afterwards."""
        self._settle()
        self._encoder.reset()
        self._link, self._sender = link, sender
        tickets = [
            link.send(server, None, Pull(sender, clock, tuple(piece.index for piece in pieces)))
            for server, pieces in _by_server(self._plan.pieces).items()
        ]
        return self._install(link.wait(tickets))

    def _settle(self) -> None:
        """Waits until nothing of an interrupted step is being sent any more."""
        for future in self._under_way:
            future.exception()
        self._under_way.clear()

    def send(self, bucket: int, clock: int, loss: float) -> None:
        """Sets the gradients of a bucket off; they must not change before `finish`."""
        if self._waits_for_norm():
            return
        self._under_way.append(self._thread.submit(self._send, self._buckets[bucket], clock, loss, None))

    def _waits_for_norm(self) -> bool:
        """Whether a push needs the norm of all gradients: where each is an update of its own."""
        return self._plan.clips and self._plan.mode.name != "sync"

    def finish(self, clock: int, loss: float) -> Traffic:
        """Waits until all gradients of the step are counted and the next step's values are in the net.

        Raises:
            Interrupted: they will not be.
        """
        if self._waits_for_norm():
            squares = sum(sum_of_squares(blob.diff_storage.array()[: blob.count]) for blob in self._blobs)
            for bucket in self._buckets:
                self._under_way.append(self._thread.submit(self._send, bucket, clock, loss, squares))
        sent = [future.result() for future in self._under_way]
        self._under_way.clear()
        traffic = self._install(self._link.wait([ticket for _, tickets in sent for ticket in tickets]))
        return replace(traffic, pushed=sum(size for size, _ in sent))

    def _send(self, bucket: Sequence[Piece], clock: int, loss: float, squares: float | None) -> tuple[int, list[Any]]:
        tickets, size = [], 0
        for server, pieces in _by_server(bucket).items():
            gradients = tuple(self._gradient(piece) for piece in pieces)
            size += sum(gradient.nbytes for gradient in gradients if gradient is not None)
            push = Push(self._sender, clock, tuple(p.index for p in pieces), gradients, loss, squares)
            wanted = tuple(p.index for p in pieces if self._moves(p))
            pull = Pull(self._sender, clock + 1, wanted) if wanted else None
            tickets.append(self._link.send(server, push, pull))
        return size, tickets

    def _moves(self, piece: Piece) -> bool:
        """Whether servers change its values from step to step."""
        info = self._plan.parameters[piece.parameter]
        return not info.kept and info.lr_mult != 0

    def _gradient(self, piece: Piece) -> Encoded | None:
        blob, info = self._blobs[piece.parameter], self._plan.parameters[piece.parameter]
        if info.kept:
            return self._kept(piece) if self._sender.rank == 0 else None
        if not blob.diff_storage.allocated:  # backward has not come by, as where lr_mult is 0
            return None
        return self._encoder.encode(piece.index, blob.diff_storage.array()[piece.start : piece.stop])

    def _kept(self, piece: Piece) -> Encoded:
        from pycaffe.cluster.protocol.compression import Dense

        return Dense(self._blobs[piece.parameter].raw_data().reshape(-1)[piece.start : piece.stop].copy())

    def _install(self, answers: Sequence[Answer]) -> Traffic:
        if any(isinstance(part, Stale) for answer in answers for part in answer):
            raise Interrupted
        pulled = refused = 0
        values: dict[int, FloatArray] = {}
        for counted, found in answers:
            if isinstance(counted, Counted):
                refused += len(counted.refused)
            if isinstance(found, Values):
                pulled += found.nbytes
                values.update({index: decode(encoded) for index, encoded in zip(found.pieces, found.values)})
        for parameter, pieces in self._by_parameter(values).items():
            target = self._blobs[parameter].data_storage.changing()
            for piece in pieces:
                target[piece.start : piece.stop] = values[piece.index]
        return Traffic(pulled=pulled, refused=refused)

    def _by_parameter(self, values: dict[int, FloatArray]) -> dict[int, list[Piece]]:
        found: dict[int, list[Piece]] = {}
        for index in values:
            piece = self._plan.pieces[index]
            found.setdefault(piece.parameter, []).append(piece)
        return found

    def close(self) -> None:
        """Ends the sending thread."""
        self._thread.shutdown(wait=False)


def _by_server(pieces: Sequence[Piece]) -> dict[int, list[Piece]]:
    found: dict[int, list[Piece]] = {}
    for piece in pieces:
        found.setdefault(piece.server, []).append(piece)
    return found
