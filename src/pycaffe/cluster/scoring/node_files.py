"""A file of this machine for every node of a cluster: the node's own copy where it has one, else from the object store.

    offer:     path ─→ size, digest, and the bytes in the object store
    path_here: the same path holds the same bytes ─→ that path
               else                               ─→ a file in this node's temporary folder, under its digest

The object store brings the bytes to a node once, and the first worker there writes the file, which all workers of the
node map: they share its pages. It stays, as a cache, for the next pool with the same weights.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycaffe.cluster.connection import put
from pycaffe.errors import ClusterError

__all__ = ["NodeFile", "offer", "path_here"]

BLOCK = 1 << 20


@dataclass(frozen=True)
class NodeFile:
    """A file of the machine that offers it.

    node: the machine's id in the cluster. reference: of its bytes; None where only the path counts.
    """

    path: str
    size: int
    digest: str
    node: str
    reference: Any = None


def offer(ray: Any, path: str, *, travels: bool) -> NodeFile:
    """This machine's file, for other nodes; `travels` puts its bytes into the object store.

    A file that cannot be read is offered as it is: whoever loads it knows the words for what is wrong.

    Raises:
        ClusterError: the object store is full.
    """
    path, node = os.path.abspath(path), ray.get_runtime_context().get_node_id()
    try:
        size = os.path.getsize(path)
        digest = _digest(path) if travels else ""
        data = np.memmap(path, np.uint8, "r") if travels and size else np.zeros(0, np.uint8)
    except OSError:
        return NodeFile(path, 0, "", node)
    reference = put(ray, data, f"{path!r} ({size / 1e6:.0f} MB)") if travels else None
    return NodeFile(path, size, digest, node, reference)


def path_here(ray: Any, file: NodeFile) -> str:
    """Where this node has the file; writes it if it has not.

    Raises:
        ClusterError: it is not here and cannot be written.
    """
    if ray.get_runtime_context().get_node_id() == file.node or file.reference is None or _same(file, file.path):
        return file.path
    copy = os.path.join(_cache(), file.digest[:32] + "-" + os.path.basename(file.path))
    if os.path.exists(copy) and os.path.getsize(copy) == file.size:
        return copy
    try:
        data = ray.get(file.reference)
        descriptor, partial = tempfile.mkstemp(dir=os.path.dirname(copy))
        try:
            with open(descriptor, "wb") as written:
                written.write(data)
            os.replace(partial, copy)  # whole or not at all: another worker may look for it at this moment
        except BaseException:
            os.unlink(partial)
            raise
    except (OSError, ray.exceptions.RayError) as error:
        raise ClusterError(f"{file.path!r} does not come to this node: {type(error).__name__}: {error}") from error
    return copy


def _same(file: NodeFile, path: str) -> bool:
    try:
        return os.path.getsize(path) == file.size and _digest(path) == file.digest
    except OSError:
        return False


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _cache() -> str:
    """The user's own folder for such files on this node; nobody else may have put anything there."""
    folder = os.path.join(tempfile.gettempdir(), f"pycaffe-{os.getuid() if hasattr(os, 'getuid') else 'files'}")
    os.makedirs(folder, 0o700, exist_ok=True)
    if hasattr(os, "getuid") and os.stat(folder).st_uid != os.getuid():
        raise ClusterError(f"{folder!r} belongs to somebody else. Set TMPDIR to another folder on this node.")
    return folder
