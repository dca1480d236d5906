"""Parameters of a net from and to files, and from other nets; everything is checked before anything changes."""

from __future__ import annotations

import logging
import math
import os
import warnings

from pycaffe.blob import Blob, FloatArray, Shape
from pycaffe.errors import ShapeError, WeightsError
from pycaffe.graph import Graph
from pycaffe.proto.caffemodel import WeightBlob, read_weights, write_hdf5, write_weights
from pycaffe.proto.schema import NetParameter

__all__ = ["copy_weights", "save_hdf5", "save_weights", "share_weights"]

logger = logging.getLogger("pycaffe.net")
Path = str | os.PathLike[str]


def copy_weights(graph: Graph, path: Path, *, map_weights: bool = True) -> None:
    """Copies parameters by layer name; layers that only the file has are ignored, with a warning if none matched.

    Raises:
        WeightsError: names the file, the layer and both shapes.
    """
    weights = read_weights(path, map_weights=map_weights)
    targets = {node.name: node.layer.blobs for node in reversed(graph.nodes)}  # the first of a name counts
    shared = {id(p.blob) for p in graph.parameters if p.owner is not None}
    pairs: list[tuple[Blob, FloatArray]] = []
    for name, sources in weights.layers.items():
        if name not in targets:
            logger.info("Ignoring source layer %s", name)
            continue
        blobs = targets[name]
        shares_rest = all(id(blob) in shared for blob in blobs[len(sources) :])  # HDF5 has them with their owner alone
        if len(sources) > len(blobs) or not shares_rest:
            raise WeightsError(
                f"Incompatible number of blobs for layer {name}. In {weights.path}: the net has {len(blobs)}, "
                f"the file {len(sources)}."
            )
        for index, (blob, source) in enumerate(zip(blobs, sources)):
            if source is not None:
                _check_fits(blob, source, index, name, weights.path)
                pairs.append((blob, source.data().reshape(-1)))
            elif id(blob) not in shared:
                raise WeightsError(
                    f"Incompatible number of blobs for layer {name}. In {weights.path}: param {index} is missing."
                )
    if not pairs and any(targets.values()):
        _warn_nothing_matched(graph, weights.path, list(weights.layers))
    for blob, values in pairs:
        blob.data_storage.adopt(values)


def _check_fits(blob: Blob, source: WeightBlob, index: int, layer: str, path: str) -> None:
    if not source.fits(blob.shape):
        raise WeightsError(
            f"Cannot copy param {index} weights from layer '{layer}'; shape mismatch. In {path}: source param shape is "
            f"{_shape_string(source.shape)}; target param shape is {_shape_string(blob.shape)}. To learn this layer's "
            "parameters from scratch rather than copying from a saved net, rename the layer."
        )


def _warn_nothing_matched(graph: Graph, path: str, layers: list[str]) -> None:
    own = [node.name for node in graph.nodes if node.layer.blobs]
    warnings.warn(
        f"No layer of {path} has the name of a layer with parameters of net {graph.name!r}: nothing was copied. "
        f"The file has {layers[:8]!r}, the net {own[:8]!r}.",
        UserWarning,
        stacklevel=4,
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
                    f"Cannot share param {index} weights from layer '{node.name}'; shape mismatch. Source param shape "
                    f"is {_shape_string(source.shape)}; target param shape is {_shape_string(target.shape)}."
                )
            pairs.append((target, source))
    for target, source in pairs:
        target.share_data(source)


def save_weights(graph: Graph, path: Path, *, diffs: bool = False) -> None:
    """Writes the layers with their parameters, and with `diffs` their gradients, as a `.caffemodel` (Net::ToProto)."""
    param = NetParameter(name=graph.name)
    for node in graph.nodes:
        param.layer.add().CopyFrom(node.layer.layer_param)
    data = [[blob.raw_data() for blob in node.layer.blobs] for node in graph.nodes]
    write_weights(path, param, data, _diffs(graph) if diffs else None)


def _diffs(graph: Graph) -> list[list[FloatArray]]:
    return [[blob.raw_diff() for blob in node.layer.blobs] for node in graph.nodes]


def save_hdf5(graph: Graph, path: Path, *, diffs: bool = False) -> None:
    """Writes the parameters as a `.caffemodel.h5`; shared ones with their owner alone (Net::ToHDF5).

    With `diffs` the gradients as well, those of shared parameters with each layer.
    """
    shared = {id(p.blob) for p in graph.parameters if p.owner is not None}
    write_hdf5(
        path,
        [
            (node.name, [None if id(blob) in shared else blob.raw_data() for blob in node.layer.blobs])
            for node in graph.nodes
        ],
        list(zip([node.name for node in graph.nodes], _diffs(graph))) if diffs else None,
    )
