"""`WithContext`: what a pool's `preprocess` knows of an item and its `postprocess` needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["WithContext"]


@dataclass(frozen=True)
class WithContext:
    """What `preprocess` may return: an item's inputs, and a value for `postprocess`.

        def preprocess(path):
            image = pycaffe.images.decode(path)
            return WithContext(to_input(image), image.shape[:2])

        def postprocess(outputs, size):  # the context is its second argument
            return boxes_in_pixels(outputs["detection_out"], size)

    The context stays in the worker and need not pickle.

    Attributes:
        inputs: the net's only input (C, H, W), or a dict of inputs by blob name.
        context: anything.
    """

    inputs: Any
    context: Any
