"""An ImagePreprocess as ONNX nodes in front of a net, and as NumPy for the check."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import ExportError
from pycaffe.export.lowered_net import Extent, LoweredNet
from pycaffe.images import ImagePreprocess

__all__ = ["FoldedPreprocess"]

FloatArray = npt.NDArray[np.float32]
SWAP = np.array([2, 1, 0], np.int64)  # blue, green, red <-> red, green, blue


class FoldedPreprocess:
    """`(x - mean) * scale` after an exchange of channels, for raw images (N, C, H, W) of the net's own size.

    Args:
        preprocessing: its mean, scale and channel_order are taken. Its resize and crop stay the caller's, because they
            are for images of any size.
        inputs: of the exported net; the one with four axes and 3 (grey: 1) channels takes images.

    Attributes:
        input: the name of that input.
        description: one line for the file and the report.

    Raises:
        ExportError: no input, or more than one, takes such images; or the mean does not fit them.
    """

    def __init__(self, preprocessing: ImagePreprocess, inputs: dict[str, tuple[Extent, ...]]) -> None:
        channels = 1 if preprocessing.grey else 3
        fitting = [name for name, shape in inputs.items() if len(shape) == 4 and shape[1] == channels]
        if len(fitting) != 1:
            raise ExportError(
                f"Preprocessing needs one input of shape (N, {channels}, H, W); {len(fitting)} of the net's inputs "
                f"{inputs!r} have it. Leave preprocessing out, and do it before the exported net."
            )
        self.input = fitting[0]
        self.swap = preprocessing.channel_order == "RGB" and not preprocessing.grey
        self.scale = np.float32(preprocessing.scale)
        self.mean = self._fitted(preprocessing.mean, inputs[self.input])
        pixels = "grey" if preprocessing.grey else "blue, green, red"
        steps = ["red, green, blue"] if self.swap else []
        if self.mean is not None:
            values = self.mean.ravel().tolist()
            steps.append(f"minus mean {values if len(values) <= 3 else f'image {self.mean.shape[1:]!r}'}")
        if self.scale != 1:
            steps.append(f"times {float(self.scale):g}")
        self.description = f"{self.input!r} takes pixels 0 to 255 ({pixels}); {', '.join(steps) or 'nothing is done'}"

    def _fitted(self, mean: FloatArray | None, shape: tuple[Extent, ...]) -> FloatArray | None:
        """The mean as (1, C, 1, 1) or (1, C, H, W); a larger one is cropped at its centre, as Caffe does."""
        if mean is None:
            return None
        if mean.shape[1:] != (1, 1):
            height, width = int(shape[2]), int(shape[3])
            top, left = (mean.shape[1] - height) // 2, (mean.shape[2] - width) // 2
            if top < 0 or left < 0:
                raise ExportError(
                    f"The mean image has {mean.shape[1]} x {mean.shape[2]} pixels, fewer than the input "
                    f"{self.input!r} of shape {shape!r}."
                )
            mean = mean[:, top : top + height, left : left + width]
        return np.ascontiguousarray(mean[np.newaxis])

    def prepend(self, lowered: LoweredNet) -> None:
        """Puts the nodes in front of those that read the input."""
        from onnx import helper

        value = self.input
        nodes: list[Any] = []

        def add(op_type: str, operand: str, array: npt.NDArray[Any], **attributes: Any) -> str:
            name = f"{self.input}/{operand}"
            while name in taken:
                name += "_"
            taken.add(name)
            lowered.arrays[name] = array
            nodes.append(helper.make_node(op_type, [value, name], [f"{name}/{op_type}"], f"{name}/node", **attributes))
            return f"{name}/{op_type}"

        taken = {*lowered.arrays, *(name for node in lowered.nodes for name in node.output)}
        if self.swap:
            value = add("Gather", "channels", SWAP, axis=1)
        if self.mean is not None:
            value = add("Sub", "mean", self.mean)
        if self.scale != 1:
            value = add("Mul", "scale", np.asarray(self.scale))
        for node in lowered.nodes:
            node.input[:] = [value if name == self.input else name for name in node.input]
        lowered.nodes[:0] = nodes

    def apply(self, images: FloatArray) -> FloatArray:
        """What the nodes compute."""
        result = images[:, SWAP] if self.swap else images
        if self.mean is not None:
            result = result - self.mean
        return np.asarray(result * self.scale, np.float32)
