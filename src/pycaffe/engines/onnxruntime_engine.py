"""The compiled engine: runs of layers as onnxruntime sessions.

The life of a forward: the caller asks for layers `start` to `end`. They are cut into segments at layers that have no
ONNX form; each segment is lowered for the present shapes, once (a small cache keeps sessions by shape); inputs and
outputs are bound to the blobs' own memory, so nothing is copied and views that users hold are live. Before each run
the versions of the segment's parameters are compared: net surgery rebuilds the session.

After a fork the child drops its sessions: their threads do not exist there. They are leaked, not destroyed, because a
session's destructor joins its threads and would wait for ever.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from pycaffe.blob import Shape, Storage
from pycaffe.engines.overwritten import OverwrittenValues
from pycaffe.engines.segment import Segment, SegmentNotLowerable, lower_segment
from pycaffe.errors import InputError
from pycaffe.graph import Graph

__all__ = ["OnnxRuntimeEngine", "create_session"]

MAX_SESSIONS = 16  # by shape and range; a pyramid of 12 sizes stays inside


@dataclass
class _Compiled:
    segment: Segment
    session: Any
    storages: list[Storage]
    versions: list[int]


class OnnxRuntimeEngine:
    """Runs ranges of a TEST-phase graph compiled.

    Args:
        graph: the net.
        device: "cpu" or "cuda:N".
        threads: threads inside one run; None lets onnxruntime take one for each core.

    Attributes:
        overwritten: what blobs held before a run worked on them in place; backward needs it.
    """

    def __init__(self, graph: Graph, device: str = "cpu", threads: int | None = None) -> None:
        self.graph = graph
        self.device = device
        self.threads = threads
        self.overwritten = OverwrittenValues()
        self._compiled: OrderedDict[tuple[int, int, tuple[Shape, ...]], _Compiled] = OrderedDict()
        self._sources: dict[tuple[int, int], list[int]] = {}
        self._not_lowerable = {i for i, node in enumerate(graph.nodes) if _never_lowers(node)}
        _engines.add(self)

    def end_of_segment(self, start: int, end: int) -> int:
        """The last layer of the compiled segment that begins at `start`; start - 1 where that one has no ONNX form."""
        last = start - 1
        while last < end and last + 1 not in self._not_lowerable:
            last += 1
        return last

    def run(self, start: int, end: int) -> int:
        """Runs compiled from layer `start` as far as possible, at most to `end`; returns the last layer that ran."""
        while True:
            last = self.end_of_segment(start, end)
            if last < start:
                return last
            try:
                self._run_segment(self._find(start, last))
            except SegmentNotLowerable as error:
                self._not_lowerable.add(error.index)
            else:
                return last

    def _find(self, start: int, end: int) -> _Compiled:
        key = (start, end, tuple(self.graph.blobs[i].shape for i in self._source_blobs(start, end)))
        compiled = self._compiled.get(key)
        if compiled is not None and not self._is_current(compiled):
            compiled = None
        if compiled is None:
            for index in range(start, end + 1):
                self.graph.reshape_node(index)
            segment = lower_segment(self.graph, start, end)
            session = create_session(segment, self.device, self.threads) if segment.outputs else None
            storages = self._parameter_storages(segment)
            compiled = self._compiled[key] = _Compiled(segment, session, storages, [s.watch() for s in storages])
        self._compiled.move_to_end(key)
        while len(self._compiled) > MAX_SESSIONS:
            self._compiled.popitem(last=False)
        return compiled

    def _is_current(self, compiled: _Compiled) -> bool:
        """Whether the parameters are those that were compiled: same buffers (`share_with`), same values (surgery)."""
        storages = self._parameter_storages(compiled.segment)
        return all(new is old for new, old in zip(storages, compiled.storages)) and compiled.versions == [
            storage.current_version() for storage in storages
        ]

    def _parameter_storages(self, segment: Segment) -> list[Storage]:
        nodes = self.graph.nodes[segment.start : segment.end + 1]
        return [blob.data_storage for node in nodes for blob in node.layer.blobs]

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

    def _run_segment(self, compiled: _Compiled) -> None:
        segment, blobs = compiled.segment, self.graph.blobs
        made = {i for _, i in segment.outputs}
        self.overwritten.forget(segment.start, made)
        if any(node.need_backward for node in self.graph.nodes[segment.start : segment.end + 1]):
            for _, i in segment.inputs:
                if i in made:
                    self.overwritten.keep(segment.start, i, blobs[i].raw_data())
        if segment.outputs:
            self._run_session(compiled)
        for index in segment.shared:
            self.graph.reshape_node(index)

    def _run_session(self, compiled: _Compiled) -> None:
        segment, blobs = compiled.segment, self.graph.blobs
        inputs = {name: blobs[i].raw_data() for name, i in segment.inputs}
        with self._located_errors():
            results = compiled.session.run([name for name, _ in segment.outputs], inputs)
        for (_, i), result in zip(segment.outputs, results):
            if blobs[i].shape != result.shape:
                blobs[i].reshape(*result.shape)
            blobs[i].raw_data()[...] = result

    @contextmanager
    def _located_errors(self) -> Iterator[None]:
        """Turns an error of onnxruntime, which names a node by its layer, into ours."""
        try:
            yield
        except Exception as error:
            if not type(error).__module__.startswith("onnxruntime"):
                raise
            named = re.search(r"Name:'([^']*)'", str(error))
            layer = named.group(1).rpartition("/")[0] if named else ""
            where = next((f" In {n.where}, layer {layer!r}." for n in self.graph.nodes if n.name == layer), "")
            raise InputError(f"A value is outside of what the layer takes: {error}.{where}") from error

    def forget(self) -> None:
        """Drops all sessions."""
        self._compiled.clear()

    def leak_sessions(self) -> None:
        """Forgets sessions without destroying them: for the child of a fork."""
        for compiled in self._compiled.values():
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(compiled.session))
        self._compiled = OrderedDict()


def _never_lowers(node: Any) -> bool:
    return node.type != "Input" and node.layer.not_lowered is not None


def create_session(segment: Segment, device: str = "cpu", threads: int | None = None) -> Any:
    """An onnxruntime session for a segment; the parameters' memory is used where it lies."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors arrive as exceptions
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    names = [name for name, _, _ in segment.parameters]
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(storage.array()[: int(np.prod(shape))].reshape(shape))
        for _, storage, shape in segment.parameters
    ]
    if names:
        options.add_external_initializers(names, values)
    return onnxruntime.InferenceSession(segment.model.SerializeToString(), options, providers=_providers(device))


def _providers(device: str) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}), "CPUExecutionProvider"]


_engines: weakref.WeakSet[OnnxRuntimeEngine] = weakref.WeakSet()


def _drop_sessions_in_child() -> None:
    for engine in list(_engines):
        engine.leak_sessions()
    if "onnxruntime" in sys.modules:
        _end_without_destructors()


def _end_without_destructors() -> None:
    """Lets this process end by `_exit` once Python has finished and C's streams are written.

    The library's static destructors, which an ordinary exit runs, would wait for threads that only the parent has.
    (`multiprocessing` ends its children by `_exit` in any case.) Exit handlers run last in, first out.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc; onnxruntime for Linux has no other
        libc.on_exit(libc._exit, None)
        libc.on_exit(libc.fcloseall, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_sessions_in_child)
