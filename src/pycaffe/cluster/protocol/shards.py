"""Parameters cut into pieces, and pieces given to servers: even bytes for each.

A large tensor is cut into one piece for each server, so that pushes and pulls of a layer go to all servers at once; a
small one goes whole to the server that has least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pycaffe.errors import SolverError

__all__ = ["ParameterInfo", "Piece", "buckets_of", "cut_into_pieces", "pieces_of_server"]

# A tensor is cut where each server's part has at least so many elements: below, messages cost more than their bytes.
SMALLEST_PART = 1024


@dataclass(frozen=True)
class ParameterInfo:
    """What servers know of a parameter of the net; of shared ones only the owner is one.

    Attributes:
        name: as people read it, such as "conv1[0]".
        size: elements.
        lr_mult, decay_mult: as in the prototxt.
        kept: forward changes it and it has no gradient (BatchNorm's statistics): worker 0's value is kept.
    """

    name: str
    size: int
    lr_mult: float = 1.0
    decay_mult: float = 1.0
    kept: bool = False


@dataclass(frozen=True)
class Piece:
    """Elements `start` to `stop` of a parameter, and the server that they live on; `index` names it in messages."""

    index: int
    parameter: int
    start: int
    stop: int
    server: int

    @property
    def size(self) -> int:
        """Elements."""
        return self.stop - self.start


def cut_into_pieces(sizes: Sequence[int], servers: int) -> list[Piece]:
    """The pieces of parameters with these numbers of elements, in the parameters' order.

    The servers' loads differ by one small tensor at most.

    Raises:
        SolverError: there is less than one server, or one would have nothing.
    """
    if servers < 1:
        raise SolverError(f"A cluster needs at least one server; got servers={servers!r}.")
    loads = [0] * servers
    parts: list[list[tuple[int, int, int]]] = [[] for _ in sizes]  # (start, stop, server)
    for parameter in sorted(range(len(sizes)), key=lambda index: (-sizes[index], index)):
        size = sizes[parameter]
        count = servers if size >= servers * SMALLEST_PART else 1
        start = 0
        for part, server in enumerate(sorted(range(servers), key=lambda index: (loads[index], index))[:count]):
            stop = start + size // count + (part < size % count)  # the least loaded take the remainder
            parts[parameter].append((start, stop, server))
            loads[server] += stop - start
            start = stop
    if not all(loads):
        raise SolverError(
            f"{servers!r} servers are too many for {len(sizes)} parameters of {sum(sizes)} elements: "
            f"{loads.count(0)} would have nothing. Use fewer."
        )
    placed = [(parameter, *part) for parameter, found in enumerate(parts) for part in found]
    return [Piece(index, *place) for index, place in enumerate(placed)]


def pieces_of_server(pieces: Sequence[Piece], server: int) -> list[Piece]:
    """Those that live on one server."""
    return [piece for piece in pieces if piece.server == server]


def buckets_of(pieces: Sequence[Piece], layers: Sequence[int], smallest: int) -> list[list[Piece]]:
    """Pieces in groups that travel together: whole layers from the last to the first, as backward finishes them.

    Args:
        pieces: all of them.
        layers: the layer of each parameter.
        smallest: a bucket is closed at the end of a layer once it has so many elements.
    """
    buckets: list[list[Piece]] = []
    size, before = 0, -1
    for piece in sorted(pieces, key=lambda piece: (-layers[piece.parameter], piece.index)):
        layer = layers[piece.parameter]
        if not buckets or (layer != before and size >= smallest):
            buckets.append([])
            size = 0
        buckets[-1].append(piece)
        size, before = size + piece.size, layer
    return buckets
