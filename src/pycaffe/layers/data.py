"""Data: images and labels from LMDB or LevelDB."""

from __future__ import annotations

from pycaffe.data.datum import datum_to_array, parse_datum
from pycaffe.data.open_database import open_database
from pycaffe.layers._reader import ImageReaderLayer, ImageRecord
from pycaffe.layers._registry import register_layer

__all__ = ["DataLayer"]


@register_layer("Data")
class DataLayer(ImageReaderLayer):
    """Reads a database of Datum messages in the order of its keys, over and over.

    top[0]: (N, C, H, W) with N = `batch_size`; H and W are `crop_size` where that is set.
    top[1]: labels (N,), optional.

    data_param: `source` (the database's folder), `backend` (LEVELDB by default, or LMDB), `batch_size`. `prefetch` has
    no meaning here, and `rand_skip` none since Caffe 1.0. transform_param: see DataTransformer; `force_color` and
    `force_gray` decide the channels of encoded images.

    Raises (at set-up and in forward):
        DataError: the database is missing, empty, truncated or damaged; an image cannot be decoded, is smaller than the
            crop, or has another size than the first of its batch.
        MissingExtra: `lmdb`, `plyvel`, or for encoded images OpenCV is not installed.

    As data_layer.cpp.
    """

    min_top_blobs = 1
    max_top_blobs = 2

    def open_source(self) -> int:
        param = self.layer_param.data_param
        self.database = open_database(param.source, param.backend)
        return int(param.batch_size)

    def read_record(self, step: bool) -> ImageRecord:
        key, value = self.database.read() if step else self.database.peek()
        name = f"Record {key.decode(errors='replace')!r} of {self.database.source!r}"
        datum = parse_datum(value, name)
        transform = self.layer_param.transform_param
        image = datum_to_array(datum, name, transform.force_color, transform.force_gray)
        return ImageRecord(image, datum.label, name)
