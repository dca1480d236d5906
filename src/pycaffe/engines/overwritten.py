"""What blobs held before a layer worked on them in place, for a backward that has no record of the forward."""

from __future__ import annotations

from collections.abc import Iterable

from pycaffe.blob import FloatArray

__all__ = ["OverwrittenValues"]


class OverwrittenValues:
    """Values by blob and by the layer at which a run began that overwrote them; both engines of a net share one.

    Most overwritten values can be computed again. These cannot: of a net's input, of a blob that a Python layer made
    or that the user edited before `forward(start=...)`.
    """

    def __init__(self) -> None:
        self._values: dict[int, dict[int, FloatArray]] = {}

    def __bool__(self) -> bool:
        return any(self._values.values())

    def forget(self, start: int, made: Iterable[int]) -> None:
        """A run that begins at layer `start` makes these blobs anew: what later layers overwrote is out of date."""
        if self._values:
            for blob in made:
                kept = self._values.get(blob)
                if kept:
                    self._values[blob] = {index: value for index, value in kept.items() if index < start}

    def keep(self, start: int, blob: int, value: FloatArray) -> None:
        """Keeps a copy of what a blob holds just before a run that begins at layer `start` overwrites it."""
        self._values.setdefault(blob, {})[start] = value.copy()

    def find(self, index: int, blob: int, writer: int) -> FloatArray | None:
        """What layer `index` read in a blob that layer `writer` (or -1) was the last to write; None where not kept."""
        kept = self._values.get(blob, {})
        begins = [begin for begin in kept if writer < begin <= index]
        return kept[max(begins)] if begins else None
