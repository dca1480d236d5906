"""Reads and writes weights (.caffemodel, .caffemodel.h5) and single blobs (.binaryproto).

A .caffemodel is mapped, not parsed: wire.py finds where each blob's numbers lie, and an array of packed floats is a
view of the mapped file. The mapping is copy-on-write: to change such an array changes neither the file nor what another
process sees.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import CaffeError, ProtoError, WeightsError
from pycaffe.proto.blob_file import blob_bytes, diagnose, load_span, new_hdf5, open_buffer, read_head, varint
from pycaffe.proto.replace_file import replacing
from pycaffe.proto.schema import LayerParameter, NetParameter
from pycaffe.proto.wire import BlobSpan, WireError, scan_blob, scan_net

__all__ = ["WeightBlob", "Weights", "read_blob", "read_weights", "write_blob", "write_hdf5", "write_weights"]

Array = npt.NDArray[np.float32]
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
# gzip, the strongest filter of HDF5, packs a thousand to one at most: a data set beyond that lies about its size.
MAX_HDF5_RATIO = 1100
MAX_GROUPS = 32


class WeightBlob:
    """One blob of a weights file.

    shape: its axes; legacy: whether the file gives them as num, channels, height, width (four axes, ones in front).
    """

    def __init__(self, shape: tuple[int, ...], load: Callable[[], Array], legacy: bool = False) -> None:
        self.shape = shape
        self.legacy = legacy
        self._load = load

    def __repr__(self) -> str:
        return f"WeightBlob(shape={self.shape!r}, legacy={self.legacy!r})"

    @property
    def count(self) -> int:
        """The number of values that the shape stands for."""
        count = 1
        for dim in self.shape:
            count *= dim
        return count

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether it can be copied into a blob of `shape`: the same shape, or in legacy form the same four axes."""
        if self.legacy:
            return len(shape) <= 4 and (1,) * (4 - len(shape)) + tuple(shape) == self.shape
        return tuple(shape) == self.shape

    def data(self) -> Array:
        """The values as a writable float32 array of `shape`; a view of the mapped file where it holds packed floats.

        Raises WeightsError where the file holds more or fewer values than the shape says.
        """
        return self._load()


class Weights:
    """What a weights file holds.

    path: the file.
    layers: for each layer, in the file's order, its blobs; None for a blob that an HDF5 file leaves out because it is
        shared and stored with another layer. Of two layers with one name the later that has blobs counts.
    """

    def __init__(self, path: str, layers: dict[str, list[WeightBlob | None]]) -> None:
        self.path = path
        self.layers = layers

    def __repr__(self) -> str:
        return f"Weights({self.path!r}, {len(self.layers)} layers)"


# ---------- reading


def read_weights(path: str | os.PathLike[str], *, map_weights: bool = True) -> Weights:
    """The weights of a .caffemodel (any format, FP16, doubles) or an HDF5 file (known by its content or suffix .h5).

    With `map_weights=False` the file is copied into memory, so that it may be changed on disk meanwhile.
    Raises WeightsError for a file that is missing, empty, truncated, damaged, or something else. Source: net.cpp,
    CopyTrainedLayersFrom.
    """
    name = os.fspath(path)
    head = read_head(name, WeightsError)
    if head.startswith(HDF5_MAGIC) or name.endswith(".h5"):
        return Weights(name, _read_hdf5(name, head))
    buffer = open_buffer(name, map_weights, WeightsError)
    layers: dict[str, list[WeightBlob | None]] = {}
    try:
        for layer in scan_net(buffer):
            blobs = [_weight_blob(name, layer.name, i, span, buffer) for i, span in enumerate(layer.blobs)]
            if blobs or layer.name not in layers:
                layers[layer.name] = list(blobs)
    except WireError as error:
        reason = diagnose(head) or f"the file is truncated or damaged: {error}."
        if name.endswith(".solverstate"):
            reason = "it is a solver state; the weights are in the .caffemodel beside it."
        raise WeightsError(f"Failed to parse NetParameter file: {name}: {reason}") from None
    if not layers:
        reason = diagnose(head) or "it holds no layers. Is it a weights file?"
        raise WeightsError(f"Failed to parse NetParameter file: {name}: {reason}")
    return Weights(name, layers)


def read_blob(path: str | os.PathLike[str]) -> Array:
    """The blob of a .binaryproto file, such as a mean image, in the shape that the file gives. Raises ProtoError."""
    name = os.fspath(path)
    head = read_head(name, ProtoError)
    buffer = open_buffer(name, False, ProtoError)
    try:
        span = scan_blob(buffer, 0, len(buffer))
        if not span.runs:
            raise WireError("it holds no numbers")
        return load_span(span, buffer)
    except WireError as error:
        raise ProtoError(f"Failed to parse BlobProto file: {name}: {diagnose(head) or f'{error}.'}") from None


def _weight_blob(name: str, layer: str, index: int, span: BlobSpan, buffer: Any) -> WeightBlob:
    def load() -> Array:
        try:
            return load_span(span, buffer)
        except WireError as error:
            raise WeightsError(f"Cannot read blob {index} of layer {layer!r} in {name}: {error}.") from None

    return WeightBlob(span.shape, load, span.legacy)


# ---------- HDF5


def _read_hdf5(name: str, head: bytes) -> dict[str, list[WeightBlob | None]]:
    import h5py

    limit = MAX_HDF5_RATIO * os.path.getsize(name)
    try:
        with h5py.File(name, "r") as file:
            if not isinstance(file.get("data"), h5py.Group):
                raise WeightsError(f"Error reading weights from {name}: it has no group 'data'.")
            layers: dict[str, list[WeightBlob | None]] = {}
            _read_hdf5_group(name, file["data"], "", limit, layers)
            return layers
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, CaffeError):
            raise
        reason = diagnose(head) or f"the file is truncated, damaged or no HDF5 file ({error})."
        raise WeightsError(f"Couldn't open {name}: {reason}") from None


def _read_hdf5_group(
    name: str, group: Any, path: str, limit: int, layers: dict[str, list[WeightBlob | None]], depth: int = 0
) -> None:
    """Adds the layers in a group. A layer called 'a/b' lies in a group within a group."""
    import h5py

    blobs: dict[int, WeightBlob] = {}
    inner = 0
    for key in group:
        item = group[key]
        place = f"{path}/{key}" if path else key
        if isinstance(item, h5py.Group):
            inner += 1
            if depth < MAX_GROUPS:
                _read_hdf5_group(name, item, place, limit, layers, depth + 1)
        elif path and key.isdecimal():
            blobs[int(key)] = _read_dataset(name, path, key, item, limit)
        else:
            raise WeightsError(f"Error reading weights from {name}: {place!r} is no blob of a layer.")
    if path and (blobs or not inner):
        if blobs and max(blobs) > 10 * len(blobs) + 100:
            raise WeightsError(f"Error reading weights from {name}: layer {path!r} has a blob number {max(blobs)}.")
        layers[path] = [blobs.get(i) for i in range(max(blobs, default=-1) + 1)]


def _read_dataset(name: str, layer: str, key: str, dataset: Any, limit: int) -> WeightBlob:
    where = f"blob {key} of layer {layer!r} in {name}"
    if dataset.dtype.kind not in "fiu":
        raise WeightsError(f"Cannot read {where}: Unsupported datatype class ({dataset.dtype}); expected numbers.")
    if dataset.size is None or dataset.size * dataset.dtype.itemsize > limit:
        raise WeightsError(f"Cannot read {where}: it says shape {dataset.shape!r}, more than the file can hold.")
    values: Array = np.asarray(dataset[()], np.float32)
    return WeightBlob(values.shape, lambda: values)


# ---------- writing


def write_weights(
    path: str | os.PathLike[str],
    net_param: Any,
    arrays: Sequence[Sequence[npt.ArrayLike]] | None = None,
    diffs: Sequence[Sequence[npt.ArrayLike]] | None = None,
) -> None:
    """Writes a .caffemodel with the bytes that the original writes (Net::ToProto and WriteProtoToBinaryFile).

    net_param: name and layers. arrays: for each layer its blobs, which replace those in `net_param`; without it the
    `blobs` of the layers are written. diffs: likewise, the gradients. Raises WeightsError where the file cannot be
    made.
    """
    head = NetParameter()
    head.CopyFrom(net_param)
    head.ClearField("layer")
    try:
        with replacing(path) as temporary, open(temporary, "xb") as file:
            file.write(head.SerializeToString())
            for i, layer in enumerate(net_param.layer):
                blobs = None if arrays is None else _blob_chunks(arrays[i], None if diffs is None else diffs[i])
                chunks = [layer.SerializeToString()] if blobs is None else _layer_chunks(layer, blobs)
                file.write(b"\xa2\x06" + varint(sum(len(chunk) for chunk in chunks)))
                file.writelines(chunks)
    except OSError as error:
        raise WeightsError(f"Couldn't open {os.fspath(path)} to save weights: {error}.") from None


def _layer_chunks(layer: Any, blobs: list[bytes | memoryview]) -> list[bytes | memoryview]:
    """A layer's bytes in the order of its field numbers, in which C++ writes: `blobs` is 7."""
    before, after = LayerParameter(), LayerParameter()
    before.CopyFrom(layer)
    after.CopyFrom(layer)
    for descriptor, _ in layer.ListFields():
        (before if descriptor.number >= 7 else after).ClearField(descriptor.name)
    after.ClearField("blobs")
    return [before.SerializeToString(), *blobs, after.SerializeToString()]


def _blob_chunks(arrays: Sequence[npt.ArrayLike], diffs: Sequence[npt.ArrayLike] | None) -> list[bytes | memoryview]:
    chunks: list[bytes | memoryview] = []
    for i, values in enumerate(arrays):
        blob = blob_bytes(values, None if diffs is None else diffs[i])
        chunks.append(b"\x3a" + varint(sum(len(chunk) for chunk in blob)))
        chunks.extend(blob)
    return chunks


def write_blob(path: str | os.PathLike[str], values: npt.ArrayLike) -> None:
    """Writes an array as a .binaryproto file. Raises ProtoError where the file cannot be made."""
    try:
        with replacing(path) as temporary, open(temporary, "xb") as file:
            file.writelines(blob_bytes(values))
    except OSError as error:
        raise ProtoError(f"Could not open file {os.fspath(path)}: {error}.") from None


def write_hdf5(
    path: str | os.PathLike[str],
    layers: Iterable[tuple[str, Sequence[npt.ArrayLike | None]]],
    diffs: Iterable[tuple[str, Sequence[npt.ArrayLike]]] | None = None,
) -> None:
    """Writes a .caffemodel.h5: data/LAYER/I, and diff/LAYER/I where `diffs` are given (Net::ToHDF5).

    layers: name and blobs; None for a blob that another layer owns, which is left out.
    Raises WeightsError where the file cannot be made.
    """
    groups: list[tuple[str, Iterable[tuple[str, Sequence[npt.ArrayLike | None]]]]] = [("data", layers)]
    if diffs is not None:
        groups.append(("diff", diffs))
    try:
        with replacing(path) as temporary, new_hdf5(temporary) as file:
            for kind, items in groups:
                parent = file.create_group(kind)
                for name, blobs in items:
                    group = parent.require_group(name)
                    for i, values in enumerate(blobs):
                        if values is not None:
                            group.create_dataset(str(i), data=np.asarray(values, np.float32))
    except OSError as error:
        raise WeightsError(f"Couldn't open {os.fspath(path)} to save weights: {error}.") from None
