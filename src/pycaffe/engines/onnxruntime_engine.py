"""The compiled engine: runs of layers as onnxruntime sessions.

The life of a forward: the caller asks for layers `start` to `end`. They are cut into segments at layers that have no
ONNX form. Each segment is lowered for the present shapes, once (a small cache keeps them by shape); before each run the
versions of its parameters are compared, and net surgery compiles it anew. Inputs are read where the blobs have them;
results become the blobs' buffers, or are copied under the views that users hold. What a run does not hand out is
fetched when somebody looks: see `compiled_segment.py`.

After a fork the child drops its sessions: their threads do not exist there. They are leaked, not destroyed, because a
session's destructor joins its threads and would wait for ever. Sessions without threads, in a process without any, may
live on: `keep_at_fork` is for the process that loads a net for the workers that it forks.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pycaffe.blob import FloatArray, Shape, structure_changes
from pycaffe.engines.compiled_segment import CompiledSegment, PendingRun
from pycaffe.engines.overwritten import OverwrittenValues
from pycaffe.engines.segment import LoweredSegment, Segment, SegmentNotLowerable, shapes_for_batch
from pycaffe.engines.session import create_session
from pycaffe.errors import InputError, NetError
from pycaffe.graph import Graph
from pycaffe.threads import default_threads

__all__ = ["OnnxRuntimeEngine"]

MAX_SEGMENTS = 16  # by range and shapes, batch extents above 1 together; a pyramid of 12 sizes stays inside
CreateSession = Callable[[Segment, list[FloatArray], int], Any]
MAX_PLANS = 64  # by range and shapes: a batch extent costs a table of shapes


@dataclass
class _Plan:
    """How a range runs for one set of shapes: compiled, and the shapes of its tops as (blob id, shape)."""

    compiled: CompiledSegment
    key: tuple[Any, ...]
    tops: list[tuple[int, Shape]]


@dataclass
class _LastRun:
    """The last forward of a range. Where nothing but input values changed since, the next one looks at no other blob.

    For SqueezeNet the looks cost 0.2 ms of a forward of 4 ms (benchmarks/bench_overhead.py).
    """

    compiled: CompiledSegment
    changes: int
    pending: PendingRun | None

    def can_repeat(self) -> bool:
        return self.changes == structure_changes() and (self.pending is None or not self.pending.fetched)


class OnnxRuntimeEngine:
    """Runs ranges of a TEST-phase graph compiled.

    Args:
        graph: the net.
        device: "cpu" or "cuda:N".
        threads: threads inside one run; None follows `set_num_threads`.
        create: makes a session of a segment, its parameters' values and a number of threads; None takes onnxruntime's.

    Attributes:
        overwritten: what blobs held before a run worked on them in place; backward needs it.
        by_layer: runs the layers from one to another in some other way, whose errors are the layers' own; None: no way.
    """

    def __init__(
        self, graph: Graph, device: str = "cpu", threads: int | None = None, create: CreateSession | None = None
    ) -> None:
        self.graph = graph
        self.device = device
        self.threads = threads
        self.overwritten = OverwrittenValues()
        self.by_layer: Callable[[int, int], object] | None = None
        self._other_sessions = create
        self._kept_at_fork = False
        self._always_out: frozenset[int] = frozenset()
        self._lock = threading.RLock()  # a look at a pending blob may come from any thread
        self._compiled: OrderedDict[tuple[Any, ...], CompiledSegment] = OrderedDict()
        self._plans: OrderedDict[tuple[Any, ...], _Plan] = OrderedDict()
        self._pending: weakref.WeakSet[PendingRun] = weakref.WeakSet()
        self._ends: dict[tuple[int, int], int] = {}
        self._sources: dict[tuple[int, int], list[int]] = {}
        self._base: dict[tuple[int, int], frozenset[int]] = {}
        self._last_runs: dict[tuple[int, int], _LastRun] = {}
        self._not_lowerable = {i for i, node in enumerate(graph.nodes) if _never_lowers(node)}
        _engines.add(self)

    def keep_at_fork(self, outputs: Iterable[int]) -> None:
        """Makes sessions once, for the children of forks, too; they have to be made with one thread.

        Each worker would hold a copy of the weights for every session made after the fork. So the blobs `outputs` (ids)
        come out of every session from the first on, and a session for any batch extent takes batch 1 as well.
        """
        self._kept_at_fork = True
        self._always_out = frozenset(outputs)
        self._base.clear()

    def prepare(self, start: int, end: int) -> int:
        """Makes the session that `run` would use, with the present shapes; returns the last layer, as `run` does."""
        while True:
            last = self.end_of_segment(start, end)
            if last < start:
                return last
            try:
                with self._lock:
                    self._find(start, last).compiled.prepare()
            except SegmentNotLowerable as error:
                self._not_lowerable.add(error.index)
                self._ends.clear()
            else:
                return last

    def end_of_segment(self, start: int, end: int) -> int:
        """The last layer of the compiled segment that begins at `start`; start - 1 where that one has no ONNX form."""
        if (start, end) not in self._ends:
            last = start - 1
            while last < end and last + 1 not in self._not_lowerable:
                last += 1
            self._ends[start, end] = last
        return self._ends[start, end]

    def run(self, start: int, end: int) -> int:
        """Runs compiled from layer `start` as far as possible, at most to `end`; returns the last layer that ran."""
        while True:
            last = self.end_of_segment(start, end)
            if last < start:
                return last
            try:
                with self._lock:
                    if not self._repeat(start, last):
                        self._run_segment(self._find(start, last))
            except SegmentNotLowerable as error:
                self._not_lowerable.add(error.index)
                self._ends.clear()
            else:
                return last

    def _repeat(self, start: int, end: int) -> bool:
        """Runs a range as it ran last, if nothing but the values of its inputs can have changed."""
        last = self._last_runs.get((start, end))
        if last is None or not last.can_repeat() or last.compiled.threads != self._thread_count():
            return False
        inputs = {name: self.graph.blobs[i].raw_data() for name, i in last.compiled.lowered.inputs}
        if not last.can_repeat():  # reading an input may have fetched it from this very run
            return False
        copies = last.compiled.copies(inputs) if last.pending is not None else None
        results = self._run_located(last.compiled, inputs, last.compiled.base)
        if last.pending is not None and copies is not None:
            last.pending.renew(copies)
        for i, array in results.items():
            self.graph.blobs[i].data_storage.put(array)
        return True

    def _find(self, start: int, end: int) -> _Plan:
        """How to run a range with the shapes that its sources have now."""
        blobs = self.graph.blobs
        shapes = tuple([blobs[i].shape for i in self._source_blobs(start, end)])
        plan = self._plans.get((start, end, shapes))
        if plan is None or self._current(plan.key) is not plan.compiled:
            for index in range(start, end + 1):
                self.graph.reshape_node(index)
            nodes = self.graph.nodes[start : end + 1]
            tops = [(i, blobs[i].shape) for node in nodes for i in node.top]
            key, compiled = self._compile(start, end, shapes)
            plan = self._plans[start, end, shapes] = _Plan(compiled, key, tops)
        self._plans.move_to_end((start, end, shapes))
        while len(self._plans) > MAX_PLANS:
            self._plans.popitem(last=False)
        return plan

    def _current(self, key: tuple[Any, ...]) -> CompiledSegment | None:
        """What is compiled under a key, unless parameters or the number of threads have changed since."""
        compiled = self._compiled.get(key)
        if compiled is None or compiled.threads != self._thread_count():
            return None
        if not compiled.is_current():
            return None
        self._compiled.move_to_end(key)
        return compiled

    def _compile(self, start: int, end: int, shapes: tuple[Shape, ...]) -> tuple[tuple[Any, ...], CompiledSegment]:
        """Compiles a range for the blobs' present shapes; for all batch extents above 1 where the layers allow.

        Batch 1 stays by itself: there the weights need no packing (see `session.py`). Of a net that is to be forked it
        shares the session of other extents, if there is one.
        """
        key: tuple[Any, ...] = (start, end, shapes)
        open_key = (start, end, "any batch", tuple(shape[1:] for shape in shapes))
        firsts = {shape[:1] for shape in shapes}
        batched = len(firsts) == 1 and firsts != {()} and firsts != {(1,)}
        if batched or self._kept_at_fork:
            compiled = self._current(open_key)
            if compiled is not None:
                return open_key, compiled
        lowered = LoweredSegment(self.graph, start, end)
        if batched and self._takes_any_batch(lowered):
            lowered.symbolic_batch = True
            key = open_key
        compiled = CompiledSegment(
            self.graph, lowered, self._read_outside(start, end), self._create, self, self._thread_count()
        )
        self._compiled[key] = compiled
        while len(self._compiled) > MAX_SEGMENTS:
            self._compiled.popitem(last=False)
            self._last_runs.clear()
        return key, compiled

    def _takes_any_batch(self, lowered: LoweredSegment) -> bool:
        """Whether the same nodes and constants come out for another batch extent."""
        if lowered.batch is None:
            return False
        try:
            shapes = shapes_for_batch(self.graph, lowered.start, lowered.end, lowered.batch + 1)
            return lowered.same_nodes(LoweredSegment(self.graph, lowered.start, lowered.end, shapes))
        except (NetError, SegmentNotLowerable):
            return False
        finally:
            for index in range(lowered.start, lowered.end + 1):
                self.graph.reshape_node(index)

    def _thread_count(self) -> int:
        return self.threads if self.threads is not None else default_threads()

    def _create(self, segment: Segment, values: list[FloatArray]) -> Any:
        if self._other_sessions is not None:
            return self._other_sessions(segment, values, self._thread_count())
        return create_session(segment, values, self.device, self._thread_count())

    def _read_outside(self, start: int, end: int) -> frozenset[int]:
        """The blobs that come out of a range in any case: the last layer's tops, and what others or nobody reads.

        A blob that shares its memory (Flatten, Split) stands for the blob that is computed.
        """
        if (start, end) not in self._base:
            nodes, blobs = self.graph.nodes, self.graph.blobs
            inside = nodes[start : end + 1]
            read = {i for node in [*nodes[:start], *nodes[end + 1 :]] for i in node.bottom}
            outside = {i for node in inside for i in node.top if i in read or i in self.graph.outputs}
            memories = {id(blobs[i].data_storage) for i in [*outside, *nodes[end].top]}
            made = {i for node in inside for i in node.top}
            memories |= {id(blobs[i].data_storage) for i in self._always_out}
            self._base[start, end] = frozenset(i for i in made if id(blobs[i].data_storage) in memories)
        return self._base[start, end]

    def _source_blobs(self, start: int, end: int) -> list[int]:
        """The blobs whose shapes decide all others of the range: those read before they are made, and net inputs."""
        if (start, end) not in self._sources:
            made: set[int] = set()
            sources: list[int] = []
            for node in self.graph.nodes[start : end + 1]:
                sources += [i for i in node.bottom if i not in made and i not in sources]
                if node.type == "Input":
                    sources += [i for i in node.top if i not in sources]
                made.update(node.top)
            self._sources[start, end] = sources
        return self._sources[start, end]

    def _run_segment(self, plan: _Plan) -> None:
        compiled, lowered, blobs = plan.compiled, plan.compiled.lowered, self.graph.blobs
        made = lowered.made
        self.overwritten.forget(lowered.start, made)
        inputs = {name: blobs[i].raw_data() for name, i in lowered.inputs}
        for name, i in compiled.overwrites:
            self.overwritten.keep(lowered.start, i, inputs[name])
        for i, shape in plan.tops:
            if blobs[i].shape != shape:
                blobs[i].reshape(*shape)
        for index, top, bottom in compiled.shared:
            if blobs[top].data_storage is not blobs[bottom].data_storage:
                self.graph.reshape_node(index)
        if made:
            self._run_session(compiled, inputs)

    def _run_session(self, compiled: CompiledSegment, inputs: dict[str, FloatArray]) -> None:
        blobs = self.graph.blobs
        results = self._run_located(compiled, inputs, compiled.wanted())
        missing = [i for i in compiled.lowered.made if i not in results]
        pending = PendingRun(compiled, compiled.copies(inputs), missing, self._lock) if missing else None
        if pending is not None:
            self._pending.add(pending)
        for i, array in results.items():
            if blobs[i].shape != array.shape:
                blobs[i].reshape(*array.shape)
            blobs[i].data_storage.put(array)
        self._remember(compiled, pending, results)

    def _remember(self, compiled: CompiledSegment, pending: PendingRun | None, results: dict[int, FloatArray]) -> None:
        """Keeps what `_repeat` needs, where the next forward can be a repetition."""
        key = (compiled.lowered.start, compiled.lowered.end)
        if compiled.is_quiet() and results.keys() == compiled.base and not self.overwritten:
            self._last_runs[key] = _LastRun(compiled, structure_changes(), pending)
        else:
            self._last_runs.pop(key, None)

    def before_change(self) -> None:
        """A parameter is about to change: forwards that were not handed out in full are, with the old values."""
        for pending in list(self._pending):
            pending.fetch()

    def _run_located(
        self, compiled: CompiledSegment, inputs: dict[str, FloatArray], wanted: frozenset[int]
    ) -> dict[int, FloatArray]:
        """A run whose errors are ours: onnxruntime's name a node, which is named by its layer."""
        try:
            return compiled.run(inputs, wanted)
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            named = re.search(r"Name:'([^']*)'", str(error))
            layer = named.group(1).rpartition("/")[0] if named else ""
            index = next((i for i, node in enumerate(self.graph.nodes) if node.name == layer), None)
            if index is not None:
                self._let_layers_say(compiled.lowered.start, index)
            where = "" if index is None else f" In {self.graph.nodes[index].where}, layer {layer!r}."
            raise InputError(f"A value is outside of what the layer takes: {error}.{where}") from error

    def _let_layers_say(self, start: int, end: int) -> None:
        """Raises what the layers themselves find wrong: a label, say, where onnxruntime speaks of an index tensor."""
        if self.by_layer is None or self._kept_at_fork:  # a worker of a pool does without torch
            return
        try:
            self.by_layer(start, end)
        except InputError:
            raise
        except (IndexError, RuntimeError):  # there is no torch, or it says as little as the session
            return

    def forget(self) -> None:
        """Drops all sessions."""
        self._compiled.clear()
        self._plans.clear()
        self._last_runs.clear()

    def leak_sessions(self) -> None:
        """Forgets sessions without destroying them, unless they may be kept: for the child of a fork."""
        self._lock = threading.RLock()  # another thread may have held it at the fork
        self._last_runs.clear()
        if self._kept_at_fork:
            return
        for compiled in self._compiled.values():
            for session in compiled.sessions:
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))
            compiled.forget_sessions()


def _never_lowers(node: Any) -> bool:
    return node.type != "Input" and node.layer.not_lowered is not None


_engines: weakref.WeakSet[OnnxRuntimeEngine] = weakref.WeakSet()


def _drop_sessions_in_child() -> None:
    for engine in list(_engines):
        engine.leak_sessions()
    if "onnxruntime" in sys.modules or "openvino" in sys.modules:
        _end_without_destructors()


def _end_without_destructors() -> None:
    """Lets this process end by `_exit` once Python has finished and C's streams are written.

    The libraries' static destructors, which an ordinary exit runs, would wait for threads that only the parent has.
    (`multiprocessing` ends its children by `_exit` in any case.) Exit handlers run last in, first out.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc; onnxruntime for Linux has no other
        libc.on_exit(libc._exit, None)
        libc.on_exit(libc.fcloseall, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_sessions_in_child)
