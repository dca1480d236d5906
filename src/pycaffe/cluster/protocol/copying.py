"""Which copies of its pieces a server makes for checkpoints, and which pushes wait for them."""

from __future__ import annotations

from collections.abc import Sequence

from pycaffe.cluster.protocol.messages import Part, PieceState

__all__ = ["Copying"]

# Parts by the interval that nobody fetched: of more than these only the newest can still become a checkpoint.
KEPT_PARTS = 2


class Copying:
    """The cut that is under way on a server, and the parts that the coordinator has not confirmed.

    A cut begins with `freeze`: pushes that are newer than what was seen are held back. With `begin` it is known where
    the cut goes: a piece is copied when it has counted all pushes below, and only then counts newer ones.

    Attributes:
        parts: those that were not released, by cut.
        copies: of the cut that is under way, by piece.
        scheduled: likewise of the version that is due by the interval; in sync no piece leaves it before all have come.
    """

    def __init__(self) -> None:
        self.parts: dict[int, Part] = {}
        self.copies: dict[int, PieceState] = {}
        self.scheduled: dict[int, PieceState] = {}
        self.clocks: tuple[int, ...] | None = None
        self._seen: tuple[int, ...] | None = None
        self._number = 0

    def freeze(self, cut: int, seen: tuple[int, ...]) -> tuple[int, ...] | None:
        """Holds pushes back; answers what was seen when it was asked first. None where that cut is over."""
        if cut > self._number:
            self._number, self._seen, self.clocks, self.copies = cut, seen, None, {}
        return self._seen if cut == self._number else None

    def begin(self, cut: int, clocks: tuple[int, ...]) -> bool:
        """Says where the cut goes. False where that was known, or the cut is over."""
        if cut != self._number or self._seen is None or self.clocks is not None:
            return False
        self.clocks = clocks
        return True

    def admits(self, piece: int, rank: int, clock: int) -> bool:
        """Whether a piece may count a push now."""
        if self._seen is None or piece in self.copies:
            return True
        return clock < (self._seen if self.clocks is None else self.clocks)[rank]

    def is_due(self, piece: int, counts: Sequence[int]) -> bool:
        """Whether a piece that has counted so many pushes is to be copied now."""
        return self.clocks is not None and piece not in self.copies and self.clocks == tuple(counts)

    def finish(self, part: Part) -> None:
        """All pieces are copied; nothing is held back any more."""
        self.parts[self._number] = part
        self._seen, self.clocks, self.copies = None, None, {}

    @property
    def number(self) -> int:
        """The cut that is under way, or the last."""
        return self._number

    def finish_scheduled(self, part: Part) -> None:
        """All pieces are copied that are due by the interval."""
        self.parts[part.cut] = part
        self.scheduled = {}
        for cut in sorted(cut for cut in self.parts if cut < 0)[KEPT_PARTS:]:
            del self.parts[cut]
