"""The mean of a database's images (tools/compute_image_mean.cpp)."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.data.database import Database
from pycaffe.data.datum import datum_to_array, parse_datum
from pycaffe.errors import DataError

__all__ = ["compute_image_mean"]

PROGRESS = 10000  # images between two log lines
logger = logging.getLogger(__name__)


def compute_image_mean(database: Database) -> FloatArray:
    """The mean image, (C, H, W), of all records, which must have one size. The sum is kept in float64.

    Raises:
        DataError: a record is damaged or has another size than the first.
    """
    total: npt.NDArray[np.float64] | None = None
    count = 0
    for key, value in database.once():
        name = f"Record {key.decode(errors='replace')!r} of {database.source!r}"
        datum = parse_datum(value, name)
        image = datum_to_array(datum, name)
        if total is None:
            if datum.encoded:
                _log("Decoding Datum", 57)
            total = np.zeros(image.shape)
            _log("Starting iteration", 70)
        if image.shape != total.shape:
            raise DataError(
                f"Incorrect data field size {image.size}. {name} has the shape {image.shape!r}, the first one "
                f"{total.shape!r}. Resize the images: caffe convert_imageset --resize_height --resize_width."
            )
        total += image
        count += 1
        if count % PROGRESS == 0:
            _log(f"Processed {count} files.", 95)
    if count % PROGRESS:
        _log(f"Processed {count} files.", 101)
    assert total is not None  # no database is empty
    return (total / count).astype(np.float32)


def _log(message: str, line: int) -> None:
    logger.info(message, extra={"place": f"compute_image_mean.cpp:{line}"})
