"""`Classifier`: a Net that takes images and gives class probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe import io
from caffe.proto import caffe_pb2
from caffe.pycaffe import Net
from pycaffe.errors import InputError

__all__ = ["Classifier", "image_transformer"]


class Classifier(Net):
    """A net for images of any size: each is resized to `image_dims`, then cropped to the net's input.

    Args:
        model_file: prototxt of the net.
        pretrained_file: its weights.
        image_dims: (height, width) that images are resized to. Default: the net's input, so that nothing is cut.
        mean: see `caffe.io.Transformer`, as for the next three.
        input_scale: see there.
        raw_scale: see there.
        channel_swap: see there.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Sequence[int] | None = None,
        mean: npt.NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, caffe_pb2.TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = self.crop_dims if image_dims is None or len(image_dims) == 0 else image_dims

    def predict(self, inputs: Sequence[npt.NDArray[Any]], oversample: bool = True) -> npt.NDArray[np.float32]:
        """Class probabilities.

        Args:
            inputs: N images (H, W, C) as `caffe.io.load_image` gives them.
            oversample: averages over the four corners, the centre and their mirror images; else the centre only.

        Returns:
            (N, classes); without oversampling the first output blob as the net gives it.

        Raises:
            InputError: there is no image.
        """
        if not len(inputs):
            raise InputError("predict needs at least one image, got none")
        images = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        crops = io.oversample(images, self.crop_dims) if oversample else self._centre(images)
        name = self.inputs[0]
        blobs: dict[str, Any] = {name: np.stack([self.transformer.preprocess(name, crop) for crop in crops])}
        predictions: npt.NDArray[np.float32] = self.forward_all(**blobs)[self.outputs[0]]
        if oversample:
            predictions = predictions.reshape(len(predictions) // 10, 10, -1).mean(1)
        return predictions

    def _centre(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        (height, width), (crop_height, crop_width) = self.image_dims, self.crop_dims
        if crop_height > height or crop_width > width:
            raise InputError(f"Cannot take {crop_height} x {crop_width} pixels from images of {height} x {width}")
        top, left = int(height / 2 - crop_height / 2), int(width / 2 - crop_width / 2)
        return images[:, top : top + crop_height, left : left + crop_width]


def image_transformer(
    net: Any,
    mean: npt.NDArray[Any] | None,
    input_scale: float | None,
    raw_scale: float | None,
    channel_swap: Sequence[int] | None,
) -> io.Transformer:
    """The Transformer from images (H, W, C) to the first input of `net`, with what is not None set."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].data.shape})
    transformer.set_transpose(name, (2, 0, 1))
    if mean is not None:
        transformer.set_mean(name, mean)
    if input_scale is not None:
        transformer.set_input_scale(name, input_scale)
    if raw_scale is not None:
        transformer.set_raw_scale(name, raw_scale)
    if channel_swap is not None:
        transformer.set_channel_swap(name, channel_swap)
    return transformer
