"""What the training forms of the nets begin with: images and labels that cost nothing to read."""

from __future__ import annotations

from typing import Any

from caffe import layers as L

__all__ = ["images_and_labels"]


def images_and_labels(n: Any, shape: tuple[int, int, int, int]) -> None:
    """Adds `data` of a shape and `label`: zeros, or what is written to them, which stays there."""
    extents = [{"dim": list(shape)}, {"dim": list(shape[:1])}]
    n.data, n.label = L.DummyData(ntop=2, shape=extents)
