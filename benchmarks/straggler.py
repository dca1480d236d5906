"""A layer that sleeps in place of a worker's work, and now and then, or always on one worker, longer."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import caffe


class Straggler(caffe.Layer):  # type: ignore[misc]
    """Copies its bottom. param_str: JSON of `seconds`, `factor`, `probability` and `rank` (that is always slow)."""

    def setup(self, bottom: Any, top: Any) -> None:
        """Reads the parameters."""
        self.options = json.loads(self.param_str)
        self.dice: random.Random | None = None

    def reshape(self, bottom: Any, top: Any) -> None:
        """The bottom's shape."""
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom: Any, top: Any) -> None:
        """Sleeps."""
        rank = caffe.solver_rank()
        if self.dice is None:  # the rank is known once training begins
            self.dice = random.Random(rank)
        slow = self.dice.random() < self.options["probability"] or rank == self.options["rank"]
        time.sleep(self.options["seconds"] * (self.options["factor"] if slow else 1))
        top[0].data[...] = bottom[0].data

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Nothing flows back."""
