"""Batches of images with labels: what Data and ImageData have in common."""

from __future__ import annotations

from abc import abstractmethod
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycaffe.blob import Shape
from pycaffe.data.prefetch import Batch, BatchSource
from pycaffe.data.transformer import DataTransformer, Draws

__all__ = ["ImageBatches", "ImageRecord"]


class ImageRecord(NamedTuple):
    """One image (C, H, W), its label, and its name for messages."""

    image: npt.NDArray[Any]
    label: int
    name: str


class ImageBatches(BatchSource):
    """Reads records in order, and makes batches (N, C, H, W) of their transformed images, and of labels (N,).

    The first image of each batch gives the batch its shape, so images may vary with batch_size 1 (load_batch of
    data_layer.cpp).
    """

    def __init__(self, batch_size: int, transformer: DataTransformer, with_labels: bool) -> None:
        self.batch_size = batch_size
        self.transformer = transformer
        self.with_labels = with_labels

    @abstractmethod
    def read(self) -> Any:
        """The next record as it is stored; steps on. After the last comes the first."""

    @abstractmethod
    def peek(self) -> Any:
        """The next record; stays there."""

    @abstractmethod
    def load(self, record: Any) -> ImageRecord:
        """The image of a record. Runs on several threads at once."""

    def shapes(self) -> list[Shape]:
        """Of the batch's arrays, as the next record says."""
        first = self.load(self.peek())
        return self._shapes(first)[: 1 + self.with_labels]

    def _shapes(self, first: ImageRecord) -> list[Shape]:
        image = self.transformer.output_shape(first.image, first.name)
        return [(self.batch_size, *image), (self.batch_size,)]

    def plan(self) -> tuple[list[Any], Draws]:
        return [self.read() for _ in range(self.batch_size)], self.transformer.draw(self.batch_size)

    def make(self, plan: tuple[list[Any], Draws]) -> Batch:
        stored, draws = plan
        first = self.load(stored[0])
        data, labels = (np.empty(shape, np.float32) for shape in self._shapes(first))
        for item, record in enumerate(chain([first], map(self.load, stored[1:]))):
            self.transformer.transform(record.image, data[item], record.name, draws[item])
            labels[item] = record.label
        return [data, labels] if self.with_labels else [data]
