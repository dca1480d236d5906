"""Parameters of a net from and to files, and from other nets; everything is checked before anything changes."""

from __future__ import annotations

import logging
import math
import os
import warnings
from typing import Any

from pycaffe.blob import Blob, Shape
from pycaffe.errors import ShapeError, WeightsError
from pycaffe.graph import Graph

__all__ = ["copy_weights", "save_hdf5", "save_weights", "share_weights"]

logger = logging.getLogger("pycaffe.net")
Path = str | os.PathLike[str]


def copy_weights(graph: Graph, path: Path, *, map_weights: bool = True) -> None:
    """Copies parameters by layer name; layers that only the file has are ignored, with a warning if none matched.

    Raises:
        WeightsError: names the file, the layer and both shapes.
    """
    from pycaffe.proto.caffemodel import read_weights

    weights = read_weights(path, map_weights=map_weights)
    targets = {node.name: node.layer.blobs for node in reversed(graph.nodes)}  # the first of a name counts
    pairs: list[tuple[Blob, Any]] = []
    matched = False
    for name, sources in weights.layers.items():
        if name not in targets:
            logger.info("Ignoring source layer %s", name)
            continue
        matched = matched or bool(sources)
        blobs = targets[name]
        if len(blobs) != len(sources):
            raise WeightsError(
                f"Incompatible number of blobs for layer {name}. In {os.fspath(path)}: the net has {len(blobs)}, "
                f"the file {len(sources)}."
            )
        for index, (blob, source) in enumerate(zip(blobs, sources)):
            if not _fits(blob, source):
                raise WeightsError(
                    f"Cannot copy param {index} weights from layer '{name}'; shape mismatch. In {os.fspath(path)}: source "
                    f"param shape is {_shape_string(source.shape)}; target param shape is {_shape_string(blob.shape)}. "
                    "To learn this layer's parameters from scratch rather than copying from a saved net, rename the layer."
                )
            pairs.append((blob, source))
    if not matched and any(targets.values()):
        warnings.warn(
            f"No layer of {os.fspath(path)} has the name of a layer with parameters of net {graph.name!r}: nothing was "
            f"copied. The file has {list(weights.layers)[:8]!r}, the net {[n for n, b in targets.items() if b][:8]!r}.",
            UserWarning,
            stacklevel=4,
        )
    for blob, source in pairs:
        blob.data_storage.adopt(source.data())


def _fits(blob: Blob, source: Any) -> bool:
    if blob.shape == tuple(source.shape):
        return True
    # Blob::ShapeEquals: legacy files say num x channels x height x width, with ones in front.
    return (
        bool(source.legacy)
        and len(blob.shape) <= 4
        and (1,) * (4 - len(blob.shape)) + blob.shape == tuple(source.shape)
    )


def _shape_string(shape: Shape) -> str:
    return f"{' '.join(map(str, shape))} ({math.prod(shape)})"


def share_weights(graph: Graph, other: Graph) -> None:
    """Lets the parameters of `graph` use the data of those of `other` in layers of the same name.

    Raises:
        ShapeError: number or shapes differ.
    """
    targets = {node.name: node.layer.blobs for node in reversed(graph.nodes)}
    pairs: list[tuple[Blob, Blob]] = []
    for node in other.nodes:
        if node.name not in targets:
            logger.info("Ignoring source layer %s", node.name)
            continue
        blobs = targets[node.name]
        if len(blobs) != len(node.layer.blobs):
            raise ShapeError(
                f"Incompatible number of blobs for layer {node.name}: {len(blobs)} and {len(node.layer.blobs)}."
            )
        for index, (target, source) in enumerate(zip(blobs, node.layer.blobs)):
            if target.shape != source.shape:
                raise ShapeError(
                    f"Cannot share param {index} weights from layer '{node.name}'; shape mismatch. Source param shape is "
                    f"{_shape_string(source.shape)}; target param shape is {_shape_string(target.shape)}."
                )
            pairs.append((target, source))
    for target, source in pairs:
        target.share_data(source)


def save_weights(graph: Graph, path: Path) -> None:
    raise NotImplementedError


def save_hdf5(graph: Graph, path: Path) -> None:
    raise NotImplementedError
