"""Where a worker is in the data: it reads the batches of its rank, and can be put to any batch of the run.

A place is the number of a batch and what each reader of the net has to be restored to so that this batch is due next.
It is the same whoever tells it: a worker of any rank, or a solver of one process, whose place in a snapshot is that of
the batch after the last one it used.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.errors import InputError
from pycaffe.graph import Node
from pycaffe.layers import HostLayer
from pycaffe.layers._reader import PrefetchingLayer
from pycaffe.net import Net

__all__ = ["DataPosition", "Place"]


@dataclass(frozen=True)
class Place:
    """Attributes:
    batch: the number of the batch that comes next.
    readers: by layer name, `layer.state()` there; empty at the beginning of the data.
    """

    batch: int = 0
    readers: dict[str, Any] = field(default_factory=dict)


class DataPosition:
    """The readers of one net.

    Args:
        net: the net that is trained.

    Attributes:
        readers: the names of the layers that read.

    Raises:
        InputError: a layer of the net is fed from Python, which nobody does on a cluster.
    """

    def __init__(self, net: Net) -> None:
        self._net = net
        self._sources = sources = [node for node in net._graph.nodes if not node.bottom]
        for node in sources:
            if node.type in ("Input", "MemoryData"):
                raise InputError(
                    f"Layer {node.name!r} ({node.type}) is fed from Python, which workers of a cluster cannot be. "
                    "Let a Data, ImageData or HDF5Data layer read the batches."
                )
        self._ahead = {n.name: n.layer for n in sources if isinstance(n.layer, PrefetchingLayer)}
        # They cannot pass a batch over: what others read is read here as well, and dropped.
        self._others = [n for n in sources if isinstance(n.layer, HostLayer) and n.name not in self._ahead]
        self.readers = frozenset(node.name for node in sources)
        self._begin = {name: state for name, state in self._states().items() if state}
        self._numbers: Iterator[int] = iter(())
        self._batch = 0  # of the others

    def go(self, assignment: Assignment, rank: int, clock: int, place: Place) -> None:
        """Puts the readers before the first batch of a worker's step `clock`, beginning at a place not behind it."""
        readers = place.readers or self._begin
        for name, layer in self._ahead.items():
            layer.choose(_numbers(assignment, rank, clock), place.batch, readers[name])
        for node in self._others:
            if node.name in readers:
                node.layer.restore(readers[node.name])
        self._numbers, self._batch = _numbers(assignment, rank, clock), place.batch

    def present(self) -> Place:
        """The place where the readers are now, as that of batch 0. For a net that nobody runs."""
        self._begin = {name: state for name, state in self._states().items() if state}
        return Place(0, dict(self._begin))

    def _states(self) -> dict[str, Any]:
        return {node.name: node.layer.state() for node in self._sources}

    def place_of(self, batch: int, place: Place) -> Place:
        """The place of a batch, from one that is not behind it. For a net that nobody runs."""
        readers = place.readers or self._begin
        found = {name: layer.state_after(readers[name], batch - place.batch) for name, layer in self._ahead.items()}
        for node in self._others:
            if node.name in readers:
                node.layer.restore(readers[node.name])
            for _ in range(batch - place.batch):
                self._read(node)
            if node.layer.state():
                found[node.name] = node.layer.state()
        return Place(batch, found)

    def next(self) -> int:
        """To be called before each forward; the number of the batch that it is going to read."""
        wanted = next(self._numbers)
        while self._others and self._batch < wanted:
            for node in self._others:
                self._read(node)
            self._batch += 1
        self._batch = wanted + 1
        return wanted

    def _read(self, node: Node) -> None:
        with node.located_errors():
            node.layer.forward_blobs([], self._net._graph.tops(node))  # type: ignore[attr-defined]

    def place(self) -> Place:
        """The place after the last batch that forward has read."""
        readers = {name: layer.state()["source"] for name, layer in self._ahead.items()}
        readers.update({node.name: node.layer.state() for node in self._others if node.layer.state()})
        return Place(self._batch, readers)


def _numbers(assignment: Assignment, rank: int, clock: int) -> Iterator[int]:
    return itertools.chain.from_iterable(assignment.batches(rank, step) for step in itertools.count(clock))
