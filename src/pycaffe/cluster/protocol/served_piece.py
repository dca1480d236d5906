"""One piece on its server: its numbers, which pushes it has counted, and those that wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.cluster.protocol.compression import (
    Compression,
    Dense,
    Encoded,
    NonFinite,
    decode,
    encode_values,
    is_finite,
)
from pycaffe.cluster.protocol.messages import PieceState
from pycaffe.cluster.protocol.shards import ParameterInfo, Piece
from pycaffe.solvers.update_rules import UpdateRule, UpdateStep, update

__all__ = ["Held", "ServedPiece"]


@dataclass(frozen=True)
class Held:
    """A push for one piece that is not counted yet."""

    incarnation: int
    gradient: Encoded | None
    loss: float
    squares: float | None


class ServedPiece:
    """A piece of a parameter.

    Arrays that went out are never changed: a reply may still be on its way when the next update comes.

    Args:
        piece, info: which.
        rule: the solver's.
        state: what it begins with.
        clocks: by rank, what that has counted.

    Attributes:
        counts: by rank, the first step whose push is not counted.
        version: in sync, how many steps have become updates.
        held: pushes that came too early, by (rank, clock).
        gradient: in sync, of the step that is `version`: the sum so far, and at last the mean; None for nothing.
        complete: in sync, whether all pushes of that step are there.
    """

    def __init__(
        self, piece: Piece, info: ParameterInfo, rule: UpdateRule, state: PieceState, clocks: Sequence[int]
    ) -> None:
        self.piece = piece
        self.info = info
        self.counts = list(clocks)
        self.version = min(clocks)
        self.held: dict[tuple[int, int], Held] = {}
        self.gradient: FloatArray | None = None
        self.complete = False
        self._rule = rule
        self._value = state.value
        self._steps = state.steps
        self._history = [array.copy() for array in state.history]
        self._lent = True  # a checkpoint holds it as well
        self._previous: FloatArray | None = None
        self._encoded: Dense | None = None
        # The gradients of ranks below `_summed` are added up; these of higher ranks are here already.
        self._summed = self._contributions = 0
        self._early: dict[int, FloatArray | None] = {}

    # -- values

    def value_at(self, clock: int, compression: Compression) -> Dense | None:
        """In sync: what a worker begins step `clock` with; None where it is gone."""
        if clock == self.version:
            return self.value(compression)
        if clock == self.version - 1 and self._previous is not None:
            return self._dense(self._previous, compression)
        return None

    def value(self, compression: Compression) -> Dense:
        """The value now, to be sent away."""
        if self._encoded is None:
            self._encoded = self._dense(self._value, compression)
            self._lent = self._lent or self._encoded.values is self._value
        return self._encoded

    def _dense(self, value: FloatArray, compression: Compression) -> Dense:
        # Statistics may be beyond float16.
        return Dense(value) if self.info.kept else encode_values(compression, value)

    def copy(self) -> PieceState:
        """The piece as it is, for a checkpoint."""
        self._lent = True
        return PieceState(self._value, tuple(array.copy() for array in self._history), self._steps)

    # -- sync: a step's gradients become one

    def add(self, rank: int, clock: int, gradient: Encoded | None) -> bool:
        """Counts a push of the step that is `version`. Returns False where it is refused, for it is not finite."""
        self.counts[rank] = clock + 1
        values, finite = self._read(rank, gradient)
        if finite:
            self._contributions += 1
        self._early[rank] = values
        while self._summed in self._early:  # in the order of ranks, so that the sum is the same in every run
            values = self._early.pop(self._summed)
            self._summed += 1
            if values is not None:
                self.gradient = values.copy() if self.gradient is None else np.add(self.gradient, values, self.gradient)
        if self._summed == len(self.counts):
            self._complete()
        return finite

    def _complete(self) -> None:
        """Makes the sum the mean of the gradients that were not refused."""
        self.complete = True
        if self.info.kept or not self._contributions:
            return
        if self.gradient is None:
            self.gradient = np.zeros(self.piece.size, np.float32)
        if self._contributions > 1:
            self.gradient *= np.float32(1 / self._contributions)

    def takes(self, rank: int, gradient: Encoded | None) -> bool:
        """Whether a push will not be refused, once it is counted."""
        return self._read(rank, gradient)[1]

    def _read(self, rank: int, gradient: Encoded | None) -> tuple[FloatArray | None, bool]:
        """The elements that a push brings, None for zeros; and whether they are all finite."""
        if gradient is None or (self.info.kept and rank != 0):
            return None, True
        if isinstance(gradient, NonFinite):
            return None, False
        values = decode(gradient)
        return (values, True) if is_finite(values) else (None, False)

    def step_on(self, step: UpdateStep) -> None:
        """Makes the step that is `version`, whose pushes are all there, the next version."""
        before = self._value
        self._lent = True  # as the previous value it stays as it is
        if self.info.kept:
            self._replace(self.gradient)
        elif self.gradient is not None:
            self._update(self.gradient, step)
        self._previous = before
        self.version += 1
        self.gradient, self.complete, self._summed, self._contributions = None, False, 0, 0

    # -- ssp and async: each push by itself

    def apply(self, rank: int, clock: int, gradient: Encoded | None, step: UpdateStep) -> bool:
        """Counts a push and updates by it. Returns False where it is refused."""
        self.counts[rank] = clock + 1
        values, finite = self._read(rank, gradient)
        if self.info.kept:
            self._replace(values)
        elif finite:
            self._update(np.zeros(self.piece.size, np.float32) if values is None else values.copy(), step)
        return finite

    def _replace(self, values: FloatArray | None) -> None:
        if values is not None:
            self._value, self._encoded = values.copy(), None

    def _update(self, gradient: FloatArray, step: UpdateStep) -> None:
        if self._lent:
            self._value, self._lent = self._value.copy(), False
        self._encoded = None
        update(self._rule, self._value, gradient, self._history, step)
        self._steps += 1

    @property
    def steps(self) -> int:
        """How many updates it has had: Adam's correction counts them."""
        return self._steps

    def forget_rank(self, rank: int, incarnation: int) -> None:
        """Drops what an older incarnation of a rank had on its way here."""
        self.held = {key: held for key, held in self.held.items() if key[0] != rank or held.incarnation >= incarnation}
