"""Data: images and labels from LMDB or LevelDB."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError

from pycaffe import parallel
from pycaffe.blob import Shape
from pycaffe.data.database import Database, Record
from pycaffe.data.datum import datum_to_array, parse_datum
from pycaffe.data.image_batches import ImageBatches, ImageRecord
from pycaffe.data.open_database import open_database
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.data.transformer import DataTransformer, Draws
from pycaffe.layers._base import TRAIN
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer
from pycaffe.proto import schema

__all__ = ["DataLayer"]

logger = logging.getLogger(__name__)


@register_layer("Data")
class DataLayer(PrefetchingLayer):
    """Reads a database of Datum messages in the order of its keys, over and over.

    Of several solvers that train together each reads the records of its rank: every `solver_count`-th.

    top[0]: (N, C, H, W) with N = `batch_size`; H and W are `crop_size` where that is set.
    top[1]: labels (N,), optional.

    data_param: `source` (the database's folder), `backend` (LEVELDB by default, or LMDB), `batch_size`, `prefetch` (4:
    so many batches are read ahead). `rand_skip` has no meaning since Caffe 1.0. transform_param: see DataTransformer;
    `force_color` and `force_gray` decide the channels of encoded images.

    Raises (at set-up and in forward):
        DataError: the database is missing, empty, truncated or damaged; an image cannot be decoded, is smaller than the
            crop, or has another size than the first of its batch.
        MissingExtra: `lmdb`, `plyvel`, or for encoded images OpenCV is not installed.

    As data_layer.cpp.
    """

    min_top_blobs = 1
    max_top_blobs = 2

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        param, transform = self.layer_param.data_param, self.layer_param.transform_param
        source = _DatabaseBatches(
            self.check_batch_size(param.batch_size),
            DataTransformer(transform, self.phase),
            self.num_top > 1,
            open_database(param.source, param.backend),
        )
        if (transform.force_color or transform.force_gray) and not source.is_encoded():
            logger.error(
                "force_color and force_gray only for encoded datum", extra={"place": "data_transformer.cpp:152"}
            )
        return source, source.shapes()


class _DatabaseBatches(ImageBatches):
    """Batches of a database's records."""

    def __init__(self, batch_size: int, transformer: DataTransformer, with_labels: bool, database: Database) -> None:
        super().__init__(batch_size, transformer, with_labels)
        self.database = database
        self._offset = 0  # how many records were passed, by all solvers together

    def read(self) -> Record:
        count = parallel.solver_count() if self.transformer.phase == TRAIN else 1  # the first rank tests alone
        while count > 1 and self._offset % count != parallel.solver_rank():
            self.database.read()
            self._offset += 1
        self._offset += 1
        return self.database.read()

    def peek(self) -> Record:
        return self.database.peek()

    def is_encoded(self) -> bool:
        """Whether the next record is an image file."""
        key, value = self.peek()
        return bool(parse_datum(value, self._name(key)).encoded)

    def make(self, plan: tuple[list[Record], Draws]) -> Batch:
        alike = self._load_alike(plan[0])
        if alike is None:
            return super().make(plan)
        images, labels = alike
        name = f"Each image of {self.database.source!r}"
        data = np.empty((len(images), *self.transformer.output_shape(images[0], name)), np.float32)
        self.transformer.transform_alike(images, data, name, plan[1])
        return [data, np.array(labels, np.float32)] if self.with_labels else [data]

    def _load_alike(self, records: list[Record]) -> tuple[npt.NDArray[np.uint8], list[int]] | None:
        """Raw images of one shape, (N, C, H, W), and their labels: no step of Python for each. None for others."""
        try:
            datums = [schema.Datum.FromString(value) for _, value in records]
        except DecodeError:
            return None  # `load` says which and why
        shape = (datums[0].channels, datums[0].height, datums[0].width)
        size = math.prod(shape)
        if min(shape) <= 0 or any(
            datum.encoded or len(datum.data) != size or (datum.channels, datum.height, datum.width) != shape
            for datum in datums
        ):
            return None
        images = np.frombuffer(b"".join([datum.data for datum in datums]), np.uint8)
        return images.reshape(-1, *shape), [datum.label for datum in datums]

    def load(self, record: Record) -> ImageRecord:
        key, value = record
        name = self._name(key)
        datum = parse_datum(value, name)
        transform = self.transformer.param
        image = datum_to_array(datum, name, transform.force_color, transform.force_gray)
        return ImageRecord(image, datum.label, name)

    def _name(self, key: bytes) -> str:
        return f"Record {key.decode(errors='replace')!r} of {self.database.source!r}"

    def state(self) -> dict[str, Any]:
        key = self.database.last_key
        return {
            "key": None if key is None else key.hex(), "offset": self._offset, "transform": self.transformer.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        key = state["key"]
        self._offset = int(state["offset"])
        self.transformer.restore(state["transform"])
        self.database.go_behind(None if key is None else bytes.fromhex(key))
