"""`forward_all` and `forward_backward_all`: inputs of any length through a net of fixed batch size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.net.structure import NetStructure

__all__ = ["BatchedNet"]


class BatchedNet(NetStructure):
    """Runs `forward` and `backward`, which `Net` defines, over batches."""

    def forward(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, FloatArray]:
        """One batch; see `Net`."""
        raise NotImplementedError

    def backward(self, diffs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, FloatArray]:
        """One batch; see `Net`."""
        raise NotImplementedError

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, FloatArray]:
        """Runs `forward` in batches over inputs of any length; the last batch is padded and the padding dropped.

        Returns:
            By blob name, the results of all items.
        """
        collected: dict[str, list[FloatArray]] = {name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])}
        for batch in self._batch(kwargs):
            for name, values in self.forward(blobs=blobs, **batch).items():
                collected[name].extend(values.copy())
        return _without_padding(collected, kwargs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Any
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Runs `forward` and `backward` in batches.

        Args:
            blobs: names of blobs to return beside the outputs.
            diffs: names of blobs whose diffs to return beside the inputs'.
            kwargs: values by name, for inputs (forward) and outputs (their diffs, backward).

        Returns:
            All blobs and all diffs, by name.
        """
        all_blobs: dict[str, list[FloatArray]] = {name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])}
        all_diffs: dict[str, list[FloatArray]] = {name: [] for name in dict.fromkeys([*self.inputs, *(diffs or [])])}
        forward_batches = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        backward_batches = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        nothing: dict[str, Any] = {}
        for inputs, top_diffs in zip_longest(forward_batches, backward_batches, fillvalue=nothing):
            for name, values in self.forward(blobs=blobs, **inputs).items():
                all_blobs[name].extend(values.copy())
            for name, values in self.backward(diffs=diffs, **top_diffs).items():
                all_diffs[name].extend(values.copy())
        return _without_padding(all_blobs, kwargs), _without_padding(all_diffs, kwargs)

    def _batch(self, blobs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Cuts equally long inputs into batches of the net's size; the last one is filled up with zeros."""
        if not blobs:
            return
        num = len(next(iter(blobs.values())))
        size = next(iter(self._graph.blobs)).shape[0]
        for begin in range(0, num, size):
            batch = {name: values[begin : begin + size] for name, values in blobs.items()}
            missing = begin + size - num
            if missing > 0:
                batch = {
                    name: np.concatenate([values, np.zeros((missing, *np.shape(values)[1:]))])
                    for name, values in batch.items()
                }
            yield batch


def _without_padding(collected: dict[str, list[FloatArray]], given: dict[str, Any]) -> dict[str, FloatArray]:
    count = len(next(iter(given.values()))) if given else None
    return {name: np.asarray(values)[:count] for name, values in collected.items()}
