"""A segment with its sessions: which blobs each hands out, which are looked at, and which values wait to be fetched.

A session that hands out every blob cannot fuse or reuse memory, so by default only those blobs come out that others
will read: outputs of the net, bottoms of layers after the segment, and blobs of which a view is alive. All others are
*pending* after a run. The first look at one runs a second session, which hands out everything, on a copy of that
forward's inputs, and all pending blobs get their values. A blob that is looked at after each of two forwards comes out
of the ordinary session from then on, until nobody has looked for a while.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from pycaffe.blob import FloatArray, Watcher
from pycaffe.engines.segment import LoweredSegment, Segment
from pycaffe.graph import Graph

__all__ = ["CompiledSegment", "PendingRun"]

Wanted = frozenset[int]
CreateSession = Callable[[Segment, list[FloatArray]], Any]
MAX_SESSIONS = 2  # of one segment: what the present use needs, and everything
LOOKS_UNTIL_OBSERVED = 2
RUNS_UNTIL_FORGOTTEN = 16


class PendingRun:
    """One compiled forward whose blobs were not all handed out: a copy of its inputs, and who waits."""

    __slots__ = ("__weakref__", "_blobs", "_compiled", "_inputs", "_lock", "fetched")

    def __init__(
        self, compiled: CompiledSegment, copies: dict[str, FloatArray], blobs: list[int], lock: threading.RLock
    ) -> None:
        self._compiled = compiled
        self._inputs = copies
        self._blobs = blobs
        self._lock = lock
        self.fetched = False
        for blob in blobs:
            compiled.graph.blobs[blob].data_storage.expect(self)

    def __del__(self) -> None:
        self._compiled.give_back(self._inputs)  # every blob that waited has been fetched or belongs to a later run

    def renew(self, copies: dict[str, FloatArray]) -> None:
        """Stands for another run of the same segment from now on: every blob waits as before."""
        self._compiled.give_back(self._inputs)
        self._inputs = copies

    def fetch(self) -> None:
        """Runs the forward once more, with everything handed out, and gives every blob that still waits its values."""
        with self._lock:
            self.fetched = True
            storages = {blob: self._compiled.graph.blobs[blob].data_storage for blob in self._blobs}
            waiting = {blob: storage for blob, storage in storages.items() if storage.pending is self}
            if waiting:
                for blob, array in self._compiled.run_again(self._inputs, list(waiting)).items():
                    waiting[blob].put(array)


class CompiledSegment:
    """Layers lowered for one set of shapes, or for all batch extents, with the sessions made of them so far.

    Args:
        graph: the net.
        lowered: the layers as ONNX nodes.
        base: ids of the blobs that always come out.
        create: makes a session of a model and its parameters' values.
        watcher: is told before a parameter changes.
        threads: that the sessions are made for.

    Attributes:
        storages: of the parameters.
        shared: (layer, top, bottom) where the top is the bottom's memory.
        overwrites: the inputs that the segment works on in place and that backward may ask for.
    """

    def __init__(
        self,
        graph: Graph,
        lowered: LoweredSegment,
        base: Wanted,
        create: CreateSession,
        watcher: Watcher,
        threads: int,
    ) -> None:
        self.graph = graph
        self.threads = threads
        self.lowered = lowered
        self.base = base & frozenset(lowered.made)
        self.storages = [storage for _, storage, _ in lowered.parameters]
        self._versions = [(storage, storage.watch(watcher)) for storage in self.storages]
        nodes = graph.nodes[lowered.start : lowered.end + 1]
        self._owners = [(blob, blob.data_storage) for node in nodes for blob in node.layer.blobs]
        self.shared = [(i, top, graph.nodes[i].bottom[0]) for i in lowered.shared for top in graph.nodes[i].top]
        needed = any(node.need_backward for node in nodes)
        self.overwrites = [(name, i) for name, i in lowered.inputs if needed and i in lowered.made]
        self._inner = [(i, graph.blobs[i]) for i in lowered.made if i not in self.base]
        self._create = create
        self._sessions: OrderedDict[Wanted, tuple[Any, Segment, list[FloatArray]]] = OrderedDict()
        self._buffers: list[dict[str, FloatArray]] = []
        self._looks: dict[int, int] = {}
        self._idle: dict[int, int] = {}  # observed blob -> runs since the last look

    def is_current(self) -> bool:
        """Whether the parameters are those that were compiled: same buffers (`share_with`), same values (surgery)."""
        return all(blob.data_storage is storage for blob, storage in self._owners) and all(
            storage.current_version() == version for storage, version in self._versions
        )

    def is_quiet(self) -> bool:
        """Whether nothing but its inputs can make the next run differ: no view of a parameter, no blob looked at."""
        return not (
            self.overwrites
            or self._looks
            or any(storage.compared for storage in self.storages)
            or any(blob.data_storage.leased for _, blob in self._inner)
        )

    # -- which blobs come out

    def wanted(self) -> Wanted:
        """The blobs that the next run hands out."""
        out = list(self._inner_looked_at())
        return self.base if not out else self.base.union(out)

    def _inner_looked_at(self) -> Iterator[int]:
        """Of the blobs that need not come out, those of which a view is alive or that are looked at each time."""
        for i, blob in self._inner:
            storage = blob.data_storage
            if storage.touched:
                storage.touched = False
                self._looks[i] = self._looks.get(i, 0) + 1
                if self._looks[i] >= LOOKS_UNTIL_OBSERVED:
                    self._idle[i] = 0
            elif i in self._looks:
                self._count_idle_run(i)
            if i in self._idle or storage.leased:
                yield i

    def _count_idle_run(self, blob: int) -> None:
        if blob not in self._idle:
            del self._looks[blob]
            return
        self._idle[blob] += 1
        if self._idle[blob] > RUNS_UNTIL_FORGOTTEN:
            del self._idle[blob], self._looks[blob]

    # -- copies of inputs, in buffers that are used again: fresh memory costs a page fault for each 4 KB

    def copies(self, inputs: dict[str, FloatArray]) -> dict[str, FloatArray]:
        """Copies of a run's inputs, to be made before it: what the user has just written is in the cache still.

        In a trial the copy of SqueezeNet's image took 0.10 ms before and 0.13 ms after.
        """
        while self._buffers:
            buffers = self._buffers.pop()
            if all(buffers[name].shape == array.shape for name, array in inputs.items()):
                for name, array in inputs.items():
                    buffers[name][...] = array  # np.copyto calls Python first: 0.01 ms with cold caches
                return buffers
        return {name: array.copy() for name, array in inputs.items()}

    def give_back(self, buffers: dict[str, FloatArray]) -> None:
        """Takes buffers that no run needs any more."""
        if not self._buffers:
            self._buffers.append(buffers)

    # -- running

    def prepare(self) -> None:
        """Makes the session that the next run will use."""
        if self.lowered.made:
            self._session(self.wanted())

    def run(self, inputs: dict[str, FloatArray], wanted: Wanted) -> dict[int, FloatArray]:
        """Values by blob id: of the blobs `wanted`, and perhaps of others."""
        session, segment = self._session(wanted)
        results = session.run([name for name, _ in segment.outputs], inputs)
        return {blob: array for (_, blob), array in zip(segment.outputs, results)}

    def run_again(self, inputs: dict[str, FloatArray], blobs: list[int]) -> dict[int, FloatArray]:
        """Values of `blobs` with the parameters as they were at the run that they are missing from."""
        session, segment = self._session(frozenset(self.lowered.made), again=True)
        names = {blob: name for name, blob in segment.outputs}
        return dict(zip(blobs, session.run([names[blob] for blob in blobs], inputs)))

    def _session(self, wanted: Wanted, again: bool = False) -> tuple[Any, Segment]:
        for outputs in self._sessions:
            if wanted <= outputs:
                session, segment, values = self._sessions[outputs]
                if again and not self._holds(values):
                    continue
                self._sessions.move_to_end(outputs)
                return session, segment
        segment = self.lowered.segment(wanted)
        values = [
            storage.values_of_version()[: math.prod(shape)].reshape(shape) for _, storage, shape in segment.parameters
        ]
        session = self._create(segment, values)
        self._sessions[wanted] = (session, segment, values)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session, segment

    def _holds(self, values: list[FloatArray]) -> bool:
        """Whether a session made of these arrays still computes with the compiled version's values.

        onnxruntime uses some arrays where they lie: one that a view can write to is not to be trusted.
        """
        return all(
            storage.values_of_version() is storage.array() or not _same_memory(array, storage.array())
            for storage, array in zip(self.storages, values)
        )

    @property
    def sessions(self) -> list[Any]:
        """The sessions, for the child of a fork."""
        return [session for session, _, _ in self._sessions.values()]

    def forget_sessions(self) -> None:
        """Drops the sessions; the next run makes new ones."""
        self._sessions.clear()


def _same_memory(a: FloatArray, b: FloatArray) -> bool:
    return bool(a.__array_interface__["data"][0] == b.__array_interface__["data"][0])
