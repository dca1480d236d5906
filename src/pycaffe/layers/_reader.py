"""What the readers share: no bottoms, tops that the data shape and not `reshape`, and for images a transform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy.typing as npt

from pycaffe.blob import Blob
from pycaffe.data.transformer import DataTransformer
from pycaffe.layers._base import HostLayer

__all__ = ["ImageReaderLayer", "ImageRecord", "ReaderLayer"]


class ReaderLayer(HostLayer):
    """A layer without bottoms. `set_up_blobs` shapes its tops, and `forward_blobs` may shape them anew."""

    exact_num_bottom_blobs = 0

    def reshape_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.bottom_shapes = []
        self.top_shapes = [blob.shape for blob in top]

    def check_batch_size(self, batch_size: int) -> int:
        """The batch size; LayerError where it is not positive."""
        if batch_size <= 0:
            raise self.error(f"Positive batch size required. Got batch_size {batch_size!r}.")
        return batch_size


class ImageRecord(NamedTuple):
    """One image (C, H, W), its label, and its name for messages."""

    image: npt.NDArray[Any]
    label: int
    name: str


class ImageReaderLayer(ReaderLayer):
    """A reader of images with labels: Data and ImageData.

    The first image of each batch gives the batch its shape, so images may vary with batch_size 1 (load_batch of
    data_layer.cpp). The original reads ahead on a thread; here a forward pass reads.
    """

    transformer: DataTransformer
    batch_size: int

    def open_source(self) -> int:
        """Opens the source and returns the batch size."""
        raise NotImplementedError(self.type)

    def read_record(self, step: bool) -> ImageRecord:
        """The next image; steps on where `step`. After the last comes the first."""
        raise NotImplementedError(self.type)

    def set_up_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        self.num_top = len(top)
        self.transformer = DataTransformer(self.layer_param.transform_param, self.phase)
        self.batch_size = self.check_batch_size(self.open_source())
        first = self.read_record(step=False)
        self._shape_tops(first, top)

    def _shape_tops(self, first: ImageRecord, top: Sequence[Blob]) -> None:
        top[0].reshape(self.batch_size, *self.transformer.output_shape(first.image, first.name))
        if self.num_top > 1:
            top[1].reshape(self.batch_size)

    def forward_blobs(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for item in range(self.batch_size):
            record = self.read_record(step=True)
            if item == 0:
                self._shape_tops(record, top)
                data = top[0].raw_data()
            self.transformer.transform(record.image, data[item], record.name)
            if self.num_top > 1:
                top[1].raw_data()[item] = record.label
