"""Pieces that keep a ledger: which gradients a value holds, through every checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pycaffe.cluster.protocol import shard_server
from pycaffe.cluster.protocol.compression import Dense
from pycaffe.cluster.protocol.messages import PieceState
from pycaffe.cluster.protocol.served_piece import ServedPiece


@dataclass(frozen=True)
class MarkedGradient(Dense):
    """A gradient that says which batch it was computed from."""

    batch: int


@dataclass(frozen=True)
class MarkedState(PieceState):
    """A copy of a piece that says which gradients it holds, in the order in which they were counted."""

    batches: tuple[int, ...]


class MarkedPiece(ServedPiece):
    """A piece that keeps a ledger of the batches it has counted, which goes with its copies."""

    def __init__(self, piece: Any, info: Any, rule: Any, state: PieceState, clocks: Sequence[int]) -> None:
        super().__init__(piece, info, rule, state, clocks)
        self.batches = list(getattr(state, "batches", ()))

    def add(self, rank: int, clock: int, gradient: Any) -> bool:
        self.batches.append(gradient.batch)
        return super().add(rank, clock, gradient)

    def apply(self, rank: int, clock: int, gradient: Any, step: Any) -> bool:
        self.batches.append(gradient.batch)
        return super().apply(rank, clock, gradient, step)

    def copy(self) -> PieceState:
        state = super().copy()
        return MarkedState(state.value, state.history, state.steps, tuple(self.batches))


def use_marked_pieces(monkeypatch: Any) -> None:
    """Lets servers keep ledgers."""
    monkeypatch.setattr(shard_server, "ServedPiece", MarkedPiece)
