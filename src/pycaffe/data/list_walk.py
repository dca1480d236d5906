"""A way through a list of images, epoch after epoch, whose place can be saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from pycaffe.data.shuffle import Order
from pycaffe.errors import LayerError

__all__ = ["ListWalk"]

Item = TypeVar("Item")


class ListWalk(Generic[Item]):
    """Gives the items of a list one after the other, and then again: as they stand, or shuffled anew for each epoch."""

    def __init__(self, items: Sequence[Item], shuffle: bool) -> None:
        self._items = items
        self._order = Order(len(items), shuffle)
        self._position = 0

    def skip(self, rand_skip: int, generator: np.random.Generator) -> None:
        """Begins a random number of items further on, below `rand_skip`.

        Raises:
            LayerError: there are not so many.
        """
        self._position = int(generator.integers(rand_skip))
        if self._position >= len(self._items):
            raise LayerError(
                f"Not enough points to skip: {self._position} of {len(self._items)} (rand_skip {rand_skip!r})."
            )

    def peek(self) -> Item:
        """The next item, which stays the next."""
        return self._items[self._order[self._position]]

    def next(self) -> Item:
        """The next item."""
        item = self.peek()
        self._position += 1
        if self._position == len(self._items):
            self._position = 0
            self._order.renew()
        return item

    def state(self) -> dict[str, Any]:
        """A JSON-able value."""
        return {"position": self._position, "order": self._order.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a `state`; other keys of the dict are somebody else's.

        Raises:
            KeyError, TypeError, ValueError: this is no such state, or one of a list of another length.
        """
        self._order.restore(state["order"])
        self._position = int(state["position"])
