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
MOST_PREFIXES = 100_000


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
        InputError: more than 100 000 prefixes were tried.
    """
    y = probabilities.astype(np.float64)
    ends_blank, ends_label = np.cumprod(y[:, blank]), np.zeros(len(y))
    best, best_probability = [], float(ends_blank[-1]) if len(y) else 1.0
    heap: list[tuple[float, list[int], Array, Array]]
    heap = [(-(1 - best_probability), [], ends_label, ends_blank)]  # what other labels than the prefix itself can have
    tried = 0
    while heap and -heap[0][0] > best_probability:
        _, prefix, old_label, old_blank = heapq.heappop(heap)
        for label in range(y.shape[1]):
            if label == blank:
                continue
            tried += 1
            if tried > MOST_PREFIXES:
                raise InputError(
                    f"No most probable labels of {len(y)} steps found among {MOST_PREFIXES} prefixes. "
                    "A lower blank_threshold parts the steps into shorter sections; decoding: 0 takes the best path."
                )
            new, ends_label, ends_blank = _extended(y, prefix, label, old_label, old_blank, blank, merge)
            probability = float(ends_label[-1] + ends_blank[-1])
            if probability > best_probability:
                best, best_probability = [*prefix, label], probability
            rest = float(new.sum()) - probability
            if rest > best_probability:
                heapq.heappush(heap, (-rest, [*prefix, label], ends_label, ends_blank))
    return best, best_probability


def _extended(
    y: Array, prefix: list[int], label: int, old_label: Array, old_blank: Array, blank: int, merge: bool
) -> tuple[Array, Array, Array]:
    """What a prefix and a label behind it have, by step.

    Returns:
        the probability that the label begins there, and that all so far reads as both, ending in the label or a blank.
    """
    before = np.concatenate(([0.0 if prefix else 1.0], (old_blank + old_label)[:-1]))
    if merge and prefix and prefix[-1] == label:
        before = np.concatenate(([0.0], old_blank[:-1]))
    new = y[:, label] * before
    ends_label, ends_blank = np.zeros(len(y)), np.zeros(len(y))
    in_label = in_blank = 0.0
    for t, step in enumerate(y):
        in_label, in_blank = new[t] + (step[label] * in_label if merge else 0.0), step[blank] * (in_label + in_blank)
        ends_label[t], ends_blank[t] = in_label, in_blank
    return new, ends_label, ends_blank


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
