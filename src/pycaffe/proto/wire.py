"""Finds the blobs of a weights file without parsing it: walks protobuf's wire format and notes where the numbers lie.

    NetParameter       1 name      2 layers (V1)    100 layer (V2)
    V2 layer           1 name      7 blobs
    V1 layer           4 name      6 blobs          1 layer (V0)
    V0 layer           1 name      50 blobs
    BlobProto          1-4 num channels height width      5 data      7 shape      8 double_data
                       10 raw_data_type      12 raw_data
    BlobShape          1 dim

Forks number their other fields as they like, so nothing else is looked at. Each length is checked against the bytes
that are there before it is used, and nothing is allocated by a length alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

__all__ = ["BlobSpan", "Field", "LayerSpan", "NumberRun", "WireError", "fields", "read_varint", "scan_blob", "scan_net"]

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)
MAX_AXES = 32  # kMaxBlobAxes of blob.hpp
MAX_GROUP_DEPTH = 100
# The types of raw_data: the enum Type of caffe.proto.
RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


class WireError(ValueError):
    """The bytes are not what they should be; caught by the readers, which know file and layer."""


class Field(NamedTuple):
    """One field, or a run of single numbers of one field.

    number, wire: what its tag says.
    start: VARINT: the value itself. Else the offset of its first byte of content.
    stop: the offset after it.
    repeats: for FIXED32 and FIXED64 how many follow each other, a one-byte tag before each.
    """

    number: int
    wire: int
    start: int
    stop: int
    repeats: int = 1


@dataclass
class NumberRun:
    """`count` numbers of `dtype` from byte `offset` on, `stride` bytes from one to the next."""

    offset: int
    count: int
    dtype: str
    stride: int


@dataclass
class BlobSpan:
    """A blob: its shape, and where its numbers lie.

    shape: as Blob::FromProto takes it; four axes where `legacy` (num, channels, height, width were given).
    runs: its numbers in order: those of double_data where there are any, else data, else raw_data.
    """

    shape: tuple[int, ...] = ()
    legacy: bool = False
    runs: list[NumberRun] = field(default_factory=list)

    @property
    def stored(self) -> int:
        """How many numbers the file holds for it."""
        return sum(run.count for run in self.runs)


@dataclass
class LayerSpan:
    """A layer of a weights file: its name and its blobs."""

    name: str = ""
    blobs: list[BlobSpan] = field(default_factory=list)


def read_varint(buffer: Any, pos: int, end: int) -> tuple[int, int]:
    """The varint at `pos` and the offset after it."""
    value = shift = 0
    while pos < end:
        byte = buffer[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, pos
        shift += 7
        if shift > 63:
            raise WireError(f"no valid number at byte {pos - 10}")
    raise WireError(f"the data ends within a number, at byte {end}")


def fields(buffer: Any, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `buffer[start:end]`."""
    pos = start
    while pos < end:
        tag_at = pos
        tag, pos = read_varint(buffer, pos, end)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise WireError(f"no valid field at byte {tag_at}")
        if wire == BYTES:
            length, pos = read_varint(buffer, pos, end)
            if length > end - pos:
                raise WireError(f"a field says that it has {length} bytes at byte {pos}, where {end - pos} are left")
            yield Field(number, wire, pos, pos + length)
            pos += length
        elif wire == VARINT:
            value, pos = read_varint(buffer, pos, end)
            yield Field(number, wire, value, pos)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            if size > end - pos:
                raise WireError(f"the data ends within a number, at byte {end}")
            repeats = _run_length(buffer, tag_at, end, size + 1) if pos - tag_at == 1 else 1
            stop = pos + size + (repeats - 1) * (size + 1)
            yield Field(number, wire, pos, stop, repeats)
            pos = stop
        elif wire == GROUP:
            pos = _skip_group(buffer, pos, end)
        else:
            raise WireError(f"no valid field at byte {tag_at}")


def _run_length(buffer: Any, tag_at: int, end: int, stride: int) -> int:
    """How many fields with the tag at `tag_at`, `stride` bytes each, follow each other. Looks in growing steps."""
    tag = buffer[tag_at]
    limit = (end - tag_at) // stride
    count = 1
    step = 1
    while count < limit:
        step = min(step * 8, 1 << 20, limit - count)
        at = tag_at + count * stride
        tags = np.frombuffer(buffer, np.uint8, (step - 1) * stride + 1, at)[::stride]
        other = np.flatnonzero(tags != tag)
        if other.size:
            return count + int(other[0])
        count += step
    return count


def _skip_group(buffer: Any, pos: int, end: int) -> int:
    """The offset after a group (an old way to nest, which no Caffe writes) whose tag has been read."""
    depth = 1
    while depth:
        tag, pos = read_varint(buffer, pos, end)
        wire = tag & 7
        if wire == GROUP:
            depth += 1
            if depth > MAX_GROUP_DEPTH:
                raise WireError(f"groups are nested too deeply at byte {pos}")
        elif wire == END_GROUP:
            depth -= 1
        elif wire == VARINT:
            _, pos = read_varint(buffer, pos, end)
        elif wire in (FIXED32, FIXED64):
            pos += 4 if wire == FIXED32 else 8
        elif wire == BYTES:
            length, pos = read_varint(buffer, pos, end)
            pos += length
        else:
            raise WireError(f"no valid field at byte {pos}")
        if pos > end:
            raise WireError(f"the data ends within a field, at byte {end}")
    return pos


def scan_net(buffer: Any) -> Iterator[LayerSpan]:
    """The layers of a NetParameter, in the order of the file."""
    for index, item in enumerate(item for item in fields(buffer, 0, len(buffer)) if item.number in (2, 100)):
        if item.wire != BYTES:
            continue
        layer = LayerSpan()
        try:
            _scan_layer(buffer, item, layer)
        except WireError as error:
            which = f"layer {layer.name!r}" if layer.name else f"layer number {index}"
            raise WireError(f"{which}, blob {len(layer.blobs)}: {error}") from None
        yield layer


def _scan_layer(buffer: Any, layer_field: Field, layer: LayerSpan) -> None:
    name, blobs, inner = (1, 7, 0) if layer_field.number == 100 else (4, 6, 1)
    for item in fields(buffer, layer_field.start, layer_field.stop):
        if item.wire != BYTES:
            continue
        if item.number == name:
            layer.name = _decode(bytes(buffer[item.start : item.stop]))
        elif item.number == blobs:
            layer.blobs.append(scan_blob(buffer, item.start, item.stop))
        elif item.number == inner:
            _scan_v0_layer(buffer, item, layer)


def _scan_v0_layer(buffer: Any, layer_field: Field, layer: LayerSpan) -> None:
    for item in fields(buffer, layer_field.start, layer_field.stop):
        if item.wire == BYTES and item.number == 1:
            layer.name = _decode(bytes(buffer[item.start : item.stop]))
        elif item.wire == BYTES and item.number == 50:
            layer.blobs.append(scan_blob(buffer, item.start, item.stop))


def _decode(name: bytes) -> str:
    """As prototxt.py decodes a line, so that the names of net and weights agree."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def scan_blob(buffer: Any, start: int, end: int) -> BlobSpan:
    """The BlobProto in `buffer[start:end]`."""
    legacy: dict[int, int] = {}
    shape: list[int] = []
    runs: dict[int, list[NumberRun]] = {5: [], 8: [], 12: []}
    raw_type = 0
    raw = None
    for item in fields(buffer, start, end):
        if item.number in (1, 2, 3, 4) and item.wire == VARINT:
            legacy[item.number] = _int32(item.start)
        elif item.number == 5:
            runs[5].extend(_numbers(item, "<f4", FIXED32))
        elif item.number == 7 and item.wire == BYTES:
            _scan_shape(buffer, item, shape)
        elif item.number == 8:
            runs[8].extend(_numbers(item, "<f8", FIXED64))
        elif item.number == 10 and item.wire == VARINT:
            raw_type = item.start
        elif item.number == 12 and item.wire == BYTES:
            raw = item
    if raw is not None and not runs[5] and not runs[8]:
        if raw_type not in RAW_TYPES:
            raise WireError(f"raw_data of type {raw_type} is not supported (known: DOUBLE, FLOAT, FLOAT16)")
        runs[12].extend(_numbers(raw, RAW_TYPES[raw_type], BYTES))
    dims = [legacy.get(axis, 0) for axis in (1, 2, 3, 4)] if legacy else shape
    if any(dim < 0 for dim in dims):
        raise WireError(f"a negative dimension in shape {dims}")
    return BlobSpan(tuple(dims), bool(legacy), runs[8] or runs[5] or runs[12])


def _numbers(item: Field, dtype: str, single: int) -> list[NumberRun]:
    """Where the numbers of a field lie: packed (BYTES), or one by one (`single`)."""
    size = np.dtype(dtype).itemsize
    if item.wire == BYTES:
        length = item.stop - item.start
        if length % size:
            raise WireError(f"{length} bytes at byte {item.start} are no whole number of {size}-byte numbers")
        return [NumberRun(item.start, length // size, dtype, size)] if length else []
    if item.wire == single:
        return [NumberRun(item.start, item.repeats, dtype, size + 1)]
    return []


def _scan_shape(buffer: Any, shape_field: Field, shape: list[int]) -> None:
    for item in fields(buffer, shape_field.start, shape_field.stop):
        if item.number != 1:
            continue
        if item.wire == VARINT:
            shape.append(_int64(item.start))
        elif item.wire == BYTES:
            pos = item.start
            while pos < item.stop and len(shape) <= MAX_AXES:
                value, pos = read_varint(buffer, pos, item.stop)
                shape.append(_int64(value))
        if len(shape) > MAX_AXES:
            raise WireError(f"a shape of more than {MAX_AXES} axes")


def _int64(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _int32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value
