"""OpenCV's high-level models over a Caffe net: an image in, classes, boxes, masks or points out.

They are `cv2.dnn.Model` and its kinds written anew, because OpenCV's take OpenCV's nets alone. Answers, defaults and
rounding are those of OpenCV 4.14. Preprocessing is OpenCV's own `blobFromImage`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.cv2dnn.net import Net
from pycaffe.cv2dnn.opencv_error import raises_opencv_errors
from pycaffe.cv2dnn.reading import read_net_from_caffe
from pycaffe.errors import InputError, MissingExtra, NetError

__all__ = ["ClassificationModel", "DetectionModel", "KeypointsModel", "Model", "SegmentationModel"]

Image = npt.NDArray[Any]
AnyModel = TypeVar("AnyModel", bound="Model")
DETECTION_VALUES = 7  # image, class, score, left, top, right, bottom


@raises_opencv_errors
class Model:
    """A net with the preprocessing of its images.

    Args:
        model: the weights' path, or a `Net`. Weights and prototxt may come in either order.
        config: the prototxt's path.
        network: a `Net`, by keyword.
    """

    def __init__(self, model: Any = None, config: Any = None, *, network: Net | None = None) -> None:
        net = network if network is not None else model
        if not isinstance(net, Net):
            if model is None or config is None:
                raise InputError("Expected a Net, or the paths of a caffemodel and its prototxt.")
            swapped = os.fspath(model).endswith(".prototxt")
            net = read_net_from_caffe(*((model, config) if swapped else (config, model)))
        self._net = net
        self._output_names = net.getUnconnectedOutLayersNames()
        shapes = [blob.shape for blob in net._inputs]
        self._size: tuple[int, int] = (shapes[0][3], shapes[0][2]) if shapes and len(shapes[0]) == 4 else (0, 0)
        self._mean = (0.0, 0.0, 0.0, 0.0)
        self._scale = (1.0, 1.0, 1.0, 1.0)
        self._swap = self._crop = False

    # -- preprocessing

    def setInputParams(
        self, scale: float = 1.0, size: Any = (0, 0), mean: Any = None, swapRB: bool = False, crop: bool = False
    ) -> None:
        """Sets all of the preprocessing: (image - mean) * scale, resized to `size` (width, height)."""
        self.setInputScale(scale).setInputSize(size).setInputMean(mean).setInputSwapRB(swapRB).setInputCrop(crop)

    def setInputSize(self: AnyModel, *size: Any) -> AnyModel:
        """Sets the size that images are resized to: (width, height), or the two numbers."""
        width, height = size[0] if len(size) == 1 else size
        self._size = (int(width), int(height))
        return self

    def setInputMean(self: AnyModel, mean: Any) -> AnyModel:
        """Sets what is subtracted from each channel, in the order that the net gets them."""
        self._mean = _scalar(0.0 if mean is None else mean)
        return self

    def setInputScale(self: AnyModel, scale: Any) -> AnyModel:
        """Sets what is multiplied with after that: one number, or one for each channel."""
        given = _scalar(scale)
        self._scale = (given[0],) * 4 if not any(given[1:]) else given
        return self

    def setInputCrop(self: AnyModel, crop: bool) -> AnyModel:
        """Sets whether the image is cropped in the middle instead of stretched."""
        self._crop = bool(crop)
        return self

    def setInputSwapRB(self: AnyModel, swapRB: bool) -> AnyModel:
        """Sets whether the first and the last channel change places."""
        self._swap = bool(swapRB)
        return self

    def setOutputNames(self: AnyModel, outNames: Sequence[str]) -> AnyModel:
        """Sets the layers whose outputs count."""
        self._output_names = tuple(outNames)
        return self

    # -- how it runs

    def setPreferableBackend(self: AnyModel, backendId: int) -> AnyModel:
        """See `Net.setPreferableBackend`."""
        self._net.setPreferableBackend(backendId)
        return self

    def setPreferableTarget(self: AnyModel, targetId: int) -> AnyModel:
        """See `Net.setPreferableTarget`."""
        self._net.setPreferableTarget(targetId)
        return self

    def enableWinograd(self: AnyModel, useWinograd: bool) -> AnyModel:
        """See `Net.enableWinograd`."""
        self._net.enableWinograd(useWinograd)
        return self

    def predict(self, frame: Image) -> tuple[FloatArray, ...]:
        """The outputs of the net for an image (H, W, C) or (H, W)."""
        self._net.setInput(self._blob(frame))
        if self._takes_image_size():
            self._net.setInput(np.array([[self._size[1], self._size[0], 1.6]], np.float32), "im_info")
        outputs: tuple[FloatArray, ...] = self._net.forward(self._output_names)
        return outputs

    def _takes_image_size(self) -> bool:
        """Whether the net has Faster R-CNN's second input."""
        return self._net.getLayer(0).outputNameToIndex("im_info") >= 0

    def _blob(self, frame: Image) -> FloatArray:
        try:
            import cv2
        except ImportError as error:
            raise MissingExtra.of("OpenCV", "images", "A model's preprocessing") from error
        if not all(self._size):
            raise InputError(f"Input size not specified. Call setInputSize; it is {self._size!r}.")
        uniform = len(set(self._scale)) == 1
        scale = self._scale[0] if uniform else 1.0
        blob: FloatArray = cv2.dnn.blobFromImage(frame, scale, self._size, self._mean, self._swap, self._crop)
        if not uniform:
            blob *= np.array(self._scale[: blob.shape[1]], np.float32).reshape(-1, 1, 1)
        return blob

    def _only_output(self, frame: Image) -> FloatArray:
        outputs = self.predict(frame)
        if len(outputs) != 1:
            raise NetError(
                f"outs.size() == 1 is needed. The outputs are {self._output_names!r}; choose one by setOutputNames."
            )
        return outputs[0]


@raises_opencv_errors
class ClassificationModel(Model):
    """A net with one output, the scores of the classes."""

    def __init__(self, model: Any = None, config: Any = None, *, network: Net | None = None) -> None:
        super().__init__(model, config, network=network)
        self._softmax = False

    def setEnableSoftmaxPostProcessing(self, enable: bool) -> ClassificationModel:
        """Sets whether a softmax over all values follows the net."""
        self._softmax = bool(enable)
        return self

    def getEnableSoftmaxPostProcessing(self) -> bool:
        """Whether a softmax follows."""
        return self._softmax

    def classify(self, frame: Image) -> tuple[int, float]:
        """The class of the highest score, and the score."""
        scores = self._only_output(frame).ravel()
        if self._softmax:
            scores = np.exp(scores - scores.max())
            scores = scores / scores.sum(dtype=np.float64).astype(np.float32)
        best = int(scores.argmax())
        return best, float(scores[best])


@raises_opencv_errors
class DetectionModel(Model):
    """A net that ends in a DetectionOutput."""

    def __init__(self, model: Any = None, config: Any = None, *, network: Net | None = None) -> None:
        super().__init__(model, config, network=network)
        self._across_classes = False

    def setNmsAcrossClasses(self, value: bool) -> DetectionModel:
        """Accepted: DetectionOutput has suppressed what overlaps by itself."""
        self._across_classes = bool(value)
        return self

    def getNmsAcrossClasses(self) -> bool:
        """What was set."""
        return self._across_classes

    def detect(self, frame: Image, confThreshold: float = 0.5, nmsThreshold: float = 0.0) -> tuple[Any, Any, Any]:
        """Finds objects.

        Args:
            frame: an image (H, W, C) or (H, W).
            confThreshold: the least score.
            nmsThreshold: accepted, and without effect, as in OpenCV for nets that end in a DetectionOutput.

        Returns:
            Classes (N,) int32, scores (N,) float32 and boxes (N, 4) int32 of left, top, width, height in the image;
            three empty tuples where nothing was found.

        Raises:
            NetError: the last layer is another.
        """
        last = self._net.getLayer(self._net.getLayerNames()[-1])
        if last.type != "DetectionOutput":
            raise NetError(f'Unknown output layer type: "{last.type}". Expected DetectionOutput.')
        rows = np.concatenate([output.reshape(-1, DETECTION_VALUES) for output in self.predict(frame)])
        rows = rows[rows[:, 2] >= np.float32(confThreshold)]
        if not len(rows):
            return (), (), ()
        height, width = (self._size[1], self._size[0]) if self._takes_image_size() else frame.shape[:2]
        return rows[:, 1].astype(np.int32), rows[:, 2].copy(), _boxes(rows[:, 3:], width, height)


def _boxes(corners: FloatArray, width: int, height: int) -> npt.NDArray[np.int32]:
    """Left, top, width and height in pixels, inside the image, from corners in pixels or in parts of the image."""
    left, top, right, bottom = corners.astype(np.int32).T
    relative = (right - left + 1 <= 2) | (bottom - top + 1 <= 2)
    pixels = np.where(relative[:, None], corners * np.array([width, height] * 2, np.float32), corners).astype(np.int32)
    left, top, right, bottom = pixels.T
    box_width, box_height = right - left + 1, bottom - top + 1
    left, top = left.clip(0, width - 1), top.clip(0, height - 1)
    box_width = np.maximum(1, np.minimum(box_width, width - left))
    box_height = np.maximum(1, np.minimum(box_height, height - top))
    return np.stack([left, top, box_width, box_height], axis=1).astype(np.int32)


@raises_opencv_errors
class SegmentationModel(Model):
    """A net whose one output (1, C, H, W) scores the classes of each pixel."""

    def segment(self, frame: Image) -> npt.NDArray[np.uint8]:
        """The class of the highest score for each pixel, (H, W) of the output."""
        classes: npt.NDArray[np.uint8] = self._only_output(frame)[0].argmax(axis=0).astype(np.uint8)
        return classes


@raises_opencv_errors
class KeypointsModel(Model):
    """A net whose one output is a map for each point and one of the background, or the points themselves."""

    def estimate(self, frame: Image, thresh: float = 0.5) -> FloatArray:
        """The points.

        Args:
            frame: an image (H, W, C) or (H, W).
            thresh: points whose map stays below it become (-1, -1).

        Returns:
            (N, 2) of x and y: in pixels of the image where the net gives maps (1, N + 1, H, W), else as the net gives
            them, (1, N, 2).
        """
        output = self._only_output(frame)
        if output.ndim == 3:
            given: FloatArray = output[0, :, :2].copy()
            return given
        if output.ndim != 4:
            raise NetError(f"Expected an output of maps (1, N, H, W) or points (1, N, 2), got {output.shape!r}.")
        count, (height, width) = output.shape[1] - 1, output.shape[2:]
        maps = output[0, :count].reshape(count, -1)
        y, x = np.unravel_index(maps.argmax(axis=1), (height, width))
        points = np.empty((count, 2), np.float32)
        points[:, 0] = x * np.float32(frame.shape[1] / width)
        points[:, 1] = y * np.float32(frame.shape[0] / height)
        points[maps.max(axis=1) <= thresh] = -1
        return points


def _scalar(values: Any) -> tuple[float, float, float, float]:
    """Four numbers, as OpenCV's Scalar: what is missing is 0."""
    given = [float(value) for value in np.atleast_1d(values)]
    if len(given) > 4:
        raise InputError(f"Expected up to four numbers, got {values!r}.")
    first, second, third, fourth = (given + [0.0] * 4)[:4]
    return first, second, third, fourth
