"""AnnotatedData: images and the objects in them, from LMDB or LevelDB."""

from __future__ import annotations

from typing import Any

import numpy as np

from pycaffe import parallel
from pycaffe.blob import Shape
from pycaffe.data.annotated_datum import annotations_of, parse_annotated_datum
from pycaffe.data.annotated_transformer import AnnotatedImage, AnnotatedTransformer
from pycaffe.data.database import Database, Record
from pycaffe.data.datum import datum_to_array
from pycaffe.data.image_augmentation import FIT_SMALL_SIZE
from pycaffe.data.open_database import open_database
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.errors import DataError
from pycaffe.layers._base import TRAIN
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer

__all__ = ["AnnotatedDataLayer"]


@register_layer("AnnotatedData")
class AnnotatedDataLayer(PrefetchingLayer):
    """Reads a database of AnnotatedDatum messages (`caffe convert_annoset`) in key order, over and over. Origin: SSD.

    Of several solvers that train together each reads the records of its rank, as in Data.

    top[0]: images (N, C, H, W) with N = `batch_size`; H and W by crop_size, else by resize_param, else the image's own.
    top[1]: objects (1, 1, G, 8), G of all images together, rows image in the batch, label, number among those of its
        label, xmin, ymin, xmax, ymax in units of the image, difficult; one row of -1 where there are none. Labels (N,)
        where the first record has no annotation type and anno_type is not given. Optional.

    data_param: `source`, `backend`, `batch_size`, `prefetch`, as in Data. annotated_data_param: `batch_sampler` (parts
    of the image, one of which is taken; see data/batch_sampler.py), `anno_type` (BBOX, the only one). label_map_file is
    not read, as in the fork. transform_param: beside what DataTransformer obeys, `distort_param`, `expand_param`,
    `resize_param`, `noise_param`, `emit_constraint`; see data/annotated_transformer.py. A box that is inverted, or ends
    up outside, is dropped.

    Raises (at set-up and in forward):
        DataError: as in Data; or a record is no AnnotatedDatum, or its type is missing where the first one has one.
        LayerError: a transformation's parameters are impossible; FIT_SMALL_SIZE with a batch_size above 1.

    As annotated_data_layer.cpp, which stores JPEG files between its steps; here pixels stay as they are.
    """

    min_top_blobs = 1
    max_top_blobs = 2
    origin = "SSD"

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        param, transform = self.layer_param.data_param, self.layer_param.transform_param
        batch_size = self.check_batch_size(param.batch_size)
        if (
            transform.HasField("resize_param")
            and transform.resize_param.resize_mode == FIT_SMALL_SIZE
            and batch_size != 1
        ):
            raise self.error(f"Only support batch size of 1 for FIT_SMALL_SIZE. Got batch_size {batch_size!r}.")
        annotated = self.layer_param.annotated_data_param
        source = _AnnotatedBatches(
            batch_size,
            AnnotatedTransformer(transform, self.phase, annotated.batch_sampler),
            self.num_top > 1,
            annotated.HasField("anno_type"),
            open_database(param.source, param.backend),
        )
        return source, source.shapes()


class _AnnotatedBatches(BatchSource):
    """Batches of a database's records."""

    def __init__(
        self, batch_size: int, transformer: AnnotatedTransformer, with_labels: bool, typed: bool, database: Database
    ) -> None:
        self.batch_size = batch_size
        self.transformer = transformer
        self.with_labels = with_labels
        self.typed = typed  # whether anno_type says what the records are
        self.database = database
        self._offset = 0  # how many records were passed, by all solvers together
        self.boxes = typed or self._parse(database.peek())[0].HasField("type")

    def shapes(self) -> list[Shape]:
        """Of the batch's arrays, as the next record says."""
        record, name = self._parse(self.database.peek())
        image = self._image(record, name)
        labels = (1, 1, max(1, len(image.objects.label)), 8) if self.boxes else (self.batch_size,)
        return [(self.batch_size, *self.transformer.output_shape(image)), labels][: 1 + self.with_labels]

    def plan(self) -> tuple[list[Record], Any]:
        return [self._read() for _ in range(self.batch_size)], self.transformer.draw(self.batch_size)

    def _read(self) -> Record:
        count = parallel.solver_count() if self.transformer.plain.phase == TRAIN else 1  # the first rank tests alone
        while count > 1 and self._offset % count != parallel.solver_rank():
            self.database.read()
            self._offset += 1
        self._offset += 1
        return self.database.read()

    def make(self, plan: tuple[list[Record], Any]) -> Batch:
        records, seeds = plan
        data = np.empty((0,), np.float32)
        rows, labels = [], np.empty(self.batch_size, np.float32)
        for item, (stored, seed) in enumerate(zip(records, seeds)):
            record, name = self._parse(stored)
            if self.boxes and not self.typed and not record.HasField("type"):
                raise DataError(f"Some datum misses AnnotationType. {name} has none, the first record had one.")
            image, draws = self.transformer.transform(self._image(record, name), int(seed))
            if item == 0:
                shape = self.transformer.plain.output_shape(image.pixels.transpose(2, 0, 1), name)
                data = np.empty((self.batch_size, *shape), np.float32)
            self.transformer.finish(image, draws, data[item])
            rows.append(image.objects.rows(item))
            labels[item] = record.datum.label
        if not self.with_labels:
            return [data]
        if not self.boxes:
            return [data, labels]
        objects = np.concatenate(rows)
        return [data, (objects if len(objects) else np.full((1, 8), -1, np.float32))[None, None]]

    def _parse(self, stored: Record) -> tuple[Any, str]:
        key, value = stored
        name = f"Record {key.decode(errors='replace')!r} of {self.database.source!r}"
        return parse_annotated_datum(value, name), name

    def _image(self, record: Any, name: str) -> AnnotatedImage:
        transform = self.transformer.param
        pixels = datum_to_array(record.datum, name, transform.force_color, transform.force_gray).transpose(1, 2, 0)
        return AnnotatedImage(pixels, annotations_of(record, name), name)

    def state(self) -> dict[str, Any]:
        key = self.database.last_key
        place = {"key": None if key is None else key.hex(), "offset": self._offset}
        return {**place, "transform": self.transformer.state()}

    def restore(self, state: dict[str, Any]) -> None:
        key = state["key"]
        self._offset = int(state["offset"])
        self.transformer.restore(state["transform"])
        self.database.go_behind(None if key is None else bytes.fromhex(key))
