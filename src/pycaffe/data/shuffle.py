"""The order of an epoch, given or shuffled, as something small that can be saved."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.rng import child_generator, generator_in_state

__all__ = ["Order"]


class Order:
    """The indices 0 … count - 1 in the order of an epoch. Its state is that of the generator before it was shuffled."""

    def __init__(self, count: int, shuffle: bool) -> None:
        self._shuffle = shuffle
        self._generator = child_generator()
        self._indices: npt.NDArray[np.intp]
        self.renew(count)

    def __getitem__(self, position: int) -> int:
        return int(self._indices[position])

    def __len__(self) -> int:
        return len(self._indices)

    def take(self, positions: range) -> npt.NDArray[np.intp]:
        """The indices at those positions."""
        return self._indices[positions.start : positions.stop : positions.step]

    def renew(self, count: int | None = None) -> None:
        """Begins another epoch, of `count` indices if that has changed."""
        self._before: Any = self._generator.bit_generator.state
        count = len(self._indices) if count is None else count
        self._indices = self._generator.permutation(count) if self._shuffle else np.arange(count)

    def state(self) -> Any:
        """A JSON-able value."""
        return {"count": len(self._indices), "generator": self._before}

    def restore(self, state: Any) -> None:
        """Makes this the epoch in which `state` was taken.

        Raises:
            KeyError, TypeError, ValueError: this is no such state, or one of another count.
        """
        if state["count"] != len(self._indices):
            raise ValueError(f"then {state['count']!r} items, now {len(self._indices)!r}")
        self._generator = generator_in_state(state["generator"])
        self.renew()
