"""The objects of a batch, as AnnotatedData gives them and MultiBoxLoss and DetectionEvaluate read them.

A row (8,) is: the image's number in the batch (-1: no object), label, number among those of its label, xmin, ymin,
xmax, ymax, difficult.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.errors import InputError
from pycaffe.layers._boxes import Array

__all__ = ["Objects", "read_objects"]

IMAGE, LABEL, BOX, DIFFICULT = 0, 1, slice(3, 7), 7


class Objects(NamedTuple):
    """Objects, one an element: the number of its image, its label, its box (n, 4), whether it is difficult."""

    image: npt.NDArray[np.int64]
    label: npt.NDArray[np.int64]
    box: Array
    difficult: npt.NDArray[np.bool_]

    def select(self, which: npt.NDArray[np.bool_]) -> Objects:
        """The objects for which `which` holds."""
        return Objects(self.image[which], self.label[which], self.box[which], self.difficult[which])


def read_objects(table: Array, background: int) -> Objects:
    """The objects in the rows of `table`, any shape of rows (8,).

    Raises:
        InputError: an object has the background's label, or a row holds NaN or infinity.
    """
    rows = table.reshape(-1, 8)
    if not np.isfinite(rows).all():
        bad = int(np.argwhere(~np.isfinite(rows))[0][0])
        raise InputError(f"Row {bad!r} of the ground truth is not finite: {rows[bad].tolist()!r}.")
    image, label = rows[:, IMAGE].astype(np.int64), rows[:, LABEL].astype(np.int64)
    objects = Objects(image, label, rows[:, BOX], rows[:, DIFFICULT] != 0).select(image != -1)
    if (objects.label == background).any():
        raise InputError(
            f"Found background label in the dataset. Labels must not be background_label_id, {background!r}."
        )
    return objects
