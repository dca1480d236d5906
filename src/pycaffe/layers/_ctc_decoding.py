"""What scores over time read as, for the CTC decoders: the best path, or the most probable labels."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError

__all__ = ["as_blob", "best_path", "collapse", "edit_distance", "most_probable", "target_labels"]

Array = npt.NDArray[Any]
MOST_VALUES = 2**21  # of prefixes left to try: how many of them times how many steps


def collapse(path: Sequence[int], blank: int, merge: bool = True) -> list[int]:
    """The labels that a path reads as: repetitions merged, blanks taken out."""
    before = [None, *path]
    return [c for c, last in zip(path, before) if c != blank and not (merge and c == last)]


def best_path(scores: Array, blank: int, merge: bool = True) -> tuple[list[int], Array]:
    """The labels of the best class of each step of (T, C), and these classes' scores, (T). Equals: the first class."""
    path = scores.argmax(axis=1)
    return collapse(path.tolist(), blank, merge), scores[np.arange(len(scores)), path]


def most_probable(probabilities: Array, blank: int, merge: bool = True) -> tuple[list[int], float]:
    """The labels of the highest probability, summed over their paths, for (T, C); and that probability.

    Prefixes are extended label by label, the most promising first, until the best labels found are more probable than
    all that begins with any other prefix (Graves 2012, algorithm 7.1).

    Raises:
        InputError: so many prefixes are left to try that they would take too much memory.
    """
    y = probabilities.astype(np.float64)
    only_blanks = np.cumprod(y[:, blank])
    best, best_probability = list[int](), float(only_blanks[-1])
    # What else a prefix can become, at most; the prefix; by step, the probability that it ends in a label, or a blank.
    heap = [(-(1 - best_probability), best, np.zeros(len(y)), only_blanks)]
    while heap and -heap[0][0] > best_probability:
        _, prefix, in_label, in_blank = heapq.heappop(heap)
        begins, in_labels, in_blanks = _extended(y, prefix, in_label, in_blank, blank, merge)
        exact = in_labels[-1] + in_blanks[-1]
        exact[blank] = 0
        label = int(exact.argmax())
        if exact[label] > best_probability:
            best, best_probability = [*prefix, label], float(exact[label])
        rest = begins.sum(0) - exact
        rest[blank] = 0
        for label in np.flatnonzero(rest > best_probability).tolist():
            heapq.heappush(
                heap, (-rest[label], [*prefix, label], in_labels[:, label].copy(), in_blanks[:, label].copy())
            )
        if len(heap) * len(y) > MOST_VALUES:
            raise InputError(
                f"The most probable labels of {len(y)} steps are too unsure: {len(heap)} prefixes are left to try. "
                "A lower blank_threshold parts the steps into shorter sections; decoding: 0 takes the best path."
            )
    return best, best_probability


def _extended(
    y: Array, prefix: list[int], in_label: Array, in_blank: Array, blank: int, merge: bool
) -> tuple[Array, Array, Array]:
    """A prefix with each label behind it, (T, C) each.

    Returns:
        the probabilities that the label begins at a step; that all so far reads as both, and ends in the label; or in a
        blank.
    """
    before = np.repeat(np.append(0.0 if prefix else 1.0, (in_blank + in_label)[:-1])[:, None], y.shape[1], axis=1)
    if merge and prefix:
        before[1:, prefix[-1]] = in_blank[:-1]  # without a blank between it is still the same label
    begins = y * before
    in_labels, in_blanks = np.empty_like(y), np.empty_like(y)
    label = blanks = np.zeros(y.shape[1])
    for t, step in enumerate(y):
        label, blanks = begins[t] + (step * label if merge else 0.0), step[blank] * (label + blanks)
        in_labels[t], in_blanks[t] = label, blanks
    return begins, in_labels, in_blanks


def edit_distance(a: Sequence[int], b: Sequence[int]) -> int:
    """How many labels must be changed, added or removed to make one sequence of the other."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        above, row = row, [i]
        for j, right in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (left != right)))
    return row[-1]


def target_labels(row: Array) -> list[int]:
    """Labels up to the first negative one, rounded."""
    ends = np.flatnonzero(row < 0)
    return [int(label + 0.5) for label in (row[: ends[0]] if len(ends) else row)]


def as_blob(found: list[list[int]], steps: int) -> npt.NDArray[np.float32]:
    """Sequences as rows of `steps` numbers (N, T), filled up with -1."""
    rows = np.full((len(found), steps), -1, np.float32)
    for row, labels in zip(rows, found):
        row[: len(labels)] = labels
    return rows
