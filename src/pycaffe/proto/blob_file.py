"""What a file of blobs is made of, byte by byte: opened and told apart from other files, its arrays read and written.

The .caffemodel, the .binaryproto and the .solverstate hold blobs in the same form; caffemodel.py and solver_state.py
know what stands around them.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import CaffeError
from pycaffe.proto.wire import BlobSpan, NumberRun, WireError

__all__ = ["blob_bytes", "diagnose", "load_span", "new_hdf5", "open_buffer", "read_head", "varint"]

Array = npt.NDArray[np.float32]


def read_head(name: str, error_type: type[CaffeError]) -> bytes:
    """The first bytes of a file. Raises `error_type` where it is missing, a folder, not readable or empty."""
    try:
        with open(name, "rb") as file:
            head = file.read(4096)
    except FileNotFoundError:
        base = "" if os.path.isabs(name) else f" A relative path starts at the working directory, {os.getcwd()!r}."
        raise error_type(f"Could not open file {name} (File not found).{base}") from None
    except (OSError, ValueError) as error:
        kind = "it is a folder" if os.path.isdir(name) else str(error)
        raise error_type(f"Could not open file {name}: {kind}.") from None
    if not head:
        raise error_type(f"Failed to parse file: {name} is empty.")
    return head


def open_buffer(name: str, map_file: bool, error_type: type[CaffeError]) -> Any:
    """The whole file: mapped copy-on-write, or read into memory."""
    try:
        with open(name, "rb") as file:
            if map_file:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            return bytearray(file.read())
    except (OSError, ValueError) as error:
        raise error_type(f"Could not open file {name}: {error}.") from None


def diagnose(head: bytes) -> str:
    """What a file that is no binary message may be, by its first bytes; empty where it looks binary."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the weights. Run `git lfs pull` where it came from."
    start = head.lstrip()[:100].lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, not the weights. Download the file itself."
    if re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", head) is None:
        return "it is text, not a binary file. Are model and weights swapped?"
    return ""


def load_span(span: BlobSpan, buffer: Any) -> Array:
    """The values of a blob in its shape. Raises WireError where their number is not what the shape says."""
    count = 1
    for dim in span.shape:
        count *= dim
    if count != span.stored:
        raise WireError(f"its shape {span.shape!r} stands for {count} values, the file holds {span.stored}")
    parts = [_run_array(run, buffer) for run in span.runs] or [np.zeros(0, np.float32)]
    try:
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(span.shape)
    except ValueError:  # one axis is 0, the others are beyond numpy's limits
        raise WireError(f"no array can have its shape {span.shape!r}") from None


def _run_array(run: NumberRun, buffer: Any) -> Array:
    size = np.dtype(run.dtype).itemsize
    if run.stride == size:
        packed = np.frombuffer(buffer, run.dtype, run.count, run.offset)
        return packed if run.dtype == "<f4" else packed.astype(np.float32)
    single: Any = np.ndarray((run.count,), run.dtype, buffer, run.offset, (run.stride,))
    return np.array(single, np.float32)


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def blob_bytes(values: npt.ArrayLike, diff: npt.ArrayLike | None = None) -> list[bytes | memoryview]:
    """A BlobProto: packed data (5), packed diff (6), shape (7)."""
    data = np.asarray(values, "<f4")
    chunks: list[bytes | memoryview] = []
    for tag, array in ((b"\x2a", data), (b"\x32", None if diff is None else np.asarray(diff, "<f4"))):
        if array is not None and array.size:
            chunks.append(tag + varint(array.nbytes))
            flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            chunks.append(memoryview(flat))
    if data.ndim:
        dims = b"".join(varint(dim) for dim in data.shape)
        shape = b"\x0a" + varint(len(dims)) + dims
        chunks.append(b"\x3a" + varint(len(shape)) + shape)
    return chunks


@contextmanager
def new_hdf5(path: str) -> Iterator[Any]:
    """An HDF5 file that is made in memory and written to the new file `path` at the end of the block. Raises OSError.

    Where a disk is full, the HDF5 library can neither write nor close the file it has open.
    """
    import h5py

    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with open(path, "xb") as written:
        written.write(image)
