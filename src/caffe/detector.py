"""`Detector`: classifies windows of images, as R-CNN does (Girshick et al., https://arxiv.org/abs/1311.2524)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from caffe import io
from caffe.classifier import image_transformer
from caffe.proto import caffe_pb2
from caffe.pycaffe import Net
from pycaffe.errors import InputError, MissingExtra

__all__ = ["Detector"]

Window = Sequence[float]


class Detector(Net):
    """A net that scores windows (ymin, xmin, ymax, xmax) of images, each warped to the net's input.

    Args:
        model_file: prototxt of the net.
        pretrained_file: its weights.
        mean: see `caffe.io.Transformer`, as for the next three.
        input_scale: see there.
        raw_scale: see there.
        channel_swap: see there.
        context_pad: so many pixels at each border of the net's input show what surrounds the window (R-CNN uses 16);
            where that lies outside the image, the mean.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        mean: npt.NDArray[Any] | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, caffe_pb2.TEST, weights=pretrained_file)
        self.transformer = image_transformer(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[str, Iterable[Window]]]) -> list[dict[str, Any]]:
        """Scores windows.

        Args:
            images_windows: pairs of an image file and its windows.

        Returns:
            One {"window", "prediction", "filename"} a window, in the order given.

        Raises:
            InputError: there is no window, an image cannot be read, or a window lies outside its image.
        """
        name = self.inputs[0]
        detections: list[dict[str, Any]] = []
        prepared = []
        for filename, windows in images_windows:
            image = io.load_image(filename)
            for window in windows:
                prepared.append(self.transformer.preprocess(name, self.crop(image, window)))
                detections.append({"window": window, "prediction": None, "filename": filename})
        if not prepared:
            raise InputError("detect_windows needs at least one window, got none")
        blobs: dict[str, Any] = {name: np.stack(prepared)}
        predictions = self.forward_all(**blobs)[self.outputs[0]]
        for detection, prediction in zip(detections, predictions):
            detection["prediction"] = prediction
        return detections

    def detect_selective_search(self, image_fnames: Iterable[str]) -> list[dict[str, Any]]:
        """Scores the windows that Selective Search proposes, as `detect_windows`.

        Raises:
            MissingExtra: selective_search_ijcv_with_python (which calls MATLAB) is not importable.
        """
        try:
            selective_search = importlib.import_module("selective_search_ijcv_with_python")
        except ImportError as error:
            raise MissingExtra(
                "detect_selective_search needs selective_search_ijcv_with_python, which is not importable. Get it from "
                "https://github.com/sergeyk/selective_search_ijcv_with_python, or pass windows to detect_windows"
            ) from error
        paths = [os.path.abspath(name) for name in image_fnames]  # MATLAB runs in another folder
        return self.detect_windows(zip(paths, selective_search.get_windows(paths, cmd="selective_search_rcnn")))

    def crop(self, im: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
        """The window (ymin, xmin, ymax, xmax) of an image (H, W, C), with its surroundings if `context_pad` is set.

        Raises:
            InputError: the window has no pixel inside the image.
        """
        if self.context_pad:
            return self._crop_with_context(im, window)
        top, left, bottom, right = (int(side) for side in window)
        crop = im[top:bottom, left:right]
        if crop.size == 0:
            raise InputError(f"Window {list(window)!r} holds no pixel of an image of {im.shape[0]} x {im.shape[1]}")
        return crop

    def _crop_with_context(self, im: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
        size = int(self.blobs[self.inputs[0]].width)  # of a square input
        top, left, bottom, right = (float(side) for side in window)
        scale = size / (size - 2.0 * (self.context_pad or 0))
        half = np.array([bottom - top + 1, right - left + 1]) / 2.0
        centre = np.array([top, left]) + half
        start, end = np.round(centre - scale * half), np.round(centre + scale * half)
        to_input = size / (end - start + 1)
        pad = np.round(np.maximum(0, -start) * to_input).astype(int)
        limits = np.array(im.shape[:2])
        start, end = np.clip(start, 0, limits).astype(int), np.clip(end, 0, limits).astype(int)
        if (end <= start).any():
            raise InputError(f"Window {list(window)!r} holds no pixel of an image of {im.shape[0]} x {im.shape[1]}")
        shape = np.minimum(np.round((end - start + 1) * to_input).astype(int), size - pad)
        context = io.resize_image(im[start[0] : end[0], start[1] : end[1]], shape)
        crop = np.ones(self.crop_dims, np.float32) * self.crop_mean
        crop[pad[0] : pad[0] + shape[0], pad[1] : pad[1] + shape[1]] = context
        return crop

    def configure_crop(self, context_pad: int | None) -> None:
        """Sets `context_pad`, and the mean in the image's own form, which fills what lies outside of the image."""
        name = self.inputs[0]
        back = np.argsort(self.transformer.transpose[name])
        self.context_pad = context_pad
        self.crop_dims = np.array(self.blobs[name].data.shape[1:])[back]
        if not context_pad:
            return
        mean = self.transformer.mean.get(name)
        if mean is None:
            self.crop_mean = np.zeros(self.crop_dims, np.float32)
            return
        swap = self.transformer.channel_swap.get(name)
        raw_scale = self.transformer.raw_scale.get(name)
        if swap is not None:
            mean = mean[np.argsort(swap)]
        crop_mean = mean.transpose(back).astype(np.float32)
        self.crop_mean = crop_mean if raw_scale is None else crop_mean / np.float32(raw_scale)
