"""ImageData: images and labels from a text file that lists them."""

from __future__ import annotations

import logging
from typing import Any

from pycaffe import parallel
from pycaffe.blob import Shape
from pycaffe.data.datum import image_to_planes
from pycaffe.data.image_batches import ImageBatches, ImageRecord
from pycaffe.data.image_list import read_image_list
from pycaffe.data.list_walk import ListWalk
from pycaffe.data.prefetch import BatchSource
from pycaffe.data.transformer import DataTransformer
from pycaffe.errors import DataError, InputError
from pycaffe.images.decode import decode, load_cv2
from pycaffe.layers._base import TRAIN
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.layers._registry import register_layer
from pycaffe.rng import child_generator

__all__ = ["ImageDataLayer"]

logger = logging.getLogger(__name__)


@register_layer("ImageData")
class ImageDataLayer(PrefetchingLayer):
    """Reads the image files that a text file lists as `path label`, over and over.

    Solvers that train together all read the whole list, and should shuffle it, as in the original.

    top[0]: (N, C, H, W) with N = `batch_size`; C is 3 (BGR), or 1 without `is_color`; H and W are `crop_size`, else
        `new_height` and `new_width`, else the image's own.
    top[1]: labels (N,).

    image_data_param: `source`, `root_folder` (put before each path as it is: end it with a slash), `batch_size` (1),
    `new_height` and `new_width` (0: as it is; else linear interpolation), `is_color` (true), `shuffle` (false; anew
    each time through the list), `rand_skip` (0; else start at a random one of the first so many). data_param:
    `prefetch` (4: so many batches are read ahead). transform_param: see DataTransformer; its force_color and force_gray
    have no meaning here.

    Raises (at set-up and in forward):
        DataError: the list is missing or empty; an image cannot be read, is smaller than the crop, or has another size
            than the first of its batch.
        LayerError: one of new_height and new_width without the other; rand_skip went past the end of the list.
        MissingExtra: OpenCV is not installed.

    As image_data_layer.cpp.
    """

    exact_num_top_blobs = 2

    def open_source(self) -> tuple[BatchSource, list[Shape]]:
        param = self.layer_param.image_data_param
        if (param.new_height > 0) != (param.new_width > 0):
            raise self.error(
                "Current implementation requires new_height and new_width to be set at the same time. "
                f"Got new_height {param.new_height!r}, new_width {param.new_width!r}."
            )
        self.check_batch_size(param.batch_size)
        if self.phase == TRAIN and parallel.solver_rank() > 0 and not param.shuffle and not param.rand_skip:
            warning = "Shuffling or skipping recommended for multi-GPU"
            logger.warning(warning, extra={"place": "image_data_layer.cpp:60"})
        source = _ListBatches(param, DataTransformer(self.layer_param.transform_param, self.phase))
        return source, source.shapes()


class _ListBatches(ImageBatches):
    """Batches of the images in a list."""

    def __init__(self, param: Any, transformer: DataTransformer) -> None:
        super().__init__(param.batch_size, transformer, with_labels=True)
        self.param = param
        self._lines = ListWalk(read_image_list(param.source), param.shuffle)
        if param.rand_skip:
            self._lines.skip(param.rand_skip, child_generator())

    def read(self) -> tuple[str, int]:
        return self._lines.next()

    def peek(self) -> tuple[str, int]:
        return self._lines.peek()

    def load(self, record: tuple[str, int]) -> ImageRecord:
        path, label = record
        param = self.param
        name = f"Image {path!r} of {param.source!r}"
        try:
            image = decode(param.root_folder + path, grey=not param.is_color)
        except InputError as error:
            raise DataError(f"Could not load {path}. It is listed in {param.source!r}. {error}.") from error
        if param.new_height:
            cv2 = load_cv2("ImageData's new_height and new_width")
            shape = (param.new_height, param.new_width, image.shape[2])
            image = cv2.resize(image, (shape[1], shape[0])).reshape(shape)
        return ImageRecord(image_to_planes(image, name), label, name)

    def state(self) -> dict[str, Any]:
        return {**self._lines.state(), "transform": self.transformer.state()}

    def restore(self, state: dict[str, Any]) -> None:
        self._lines.restore(state)
        self.transformer.restore(state["transform"])
