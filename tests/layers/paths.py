"""CTC by its definition: the probability of labels, summed over each path that reads as them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

__all__ = ["labelling_probabilities", "likelihood", "reading", "softmax"]


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def reading(path: Sequence[int], blank: int, merge: bool = True) -> tuple[int, ...]:
    labels, last = [], None
    for c in path:
        if c != blank and not (merge and c == last):
            labels.append(int(c))
        last = c
    return tuple(labels)


def labelling_probabilities(y: np.ndarray, blank: int, merge: bool = True) -> dict[tuple[int, ...], float]:
    """The probability of all labellings of (T, C), by trying all C^T paths."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(y.shape[1]), repeat=len(y)):
        key = reading(path, blank, merge)
        found[key] = found.get(key, 0.0) + float(np.prod([y[t, c] for t, c in enumerate(path)]))
    return found


def likelihood(y: np.ndarray, labels: Sequence[int], blank: int, merge: bool = True) -> float:
    return labelling_probabilities(y, blank, merge).get(tuple(labels), 0.0)
