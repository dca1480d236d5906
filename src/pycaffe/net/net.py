"""`Net`: blobs, parameters, forward, backward, with pycaffe's names; it chooses the engine.

A forward of a TEST-phase net runs compiled (onnxruntime) wherever its layers have an ONNX form; TRAIN-phase nets,
layers without one, and nets that have been asked for a backward run on torch, layer by layer. Readers, writers and
Python layers run on the host between. One lock per net makes concurrent calls from several threads take turns, as the
original's GIL did.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pycaffe.blob import Blob, FloatArray
from pycaffe.devices import check_device, default_device
from pycaffe.engines.onnxruntime_engine import OnnxRuntimeEngine
from pycaffe.engines.runtime import runs_on
from pycaffe.engines.torch_engine import TorchEngine
from pycaffe.errors import InputError, NetError
from pycaffe.graph import build_graph, check_range
from pycaffe.layers import HostLayer
from pycaffe.net.batches import BatchedNet
from pycaffe.net.calibration import Calibration
from pycaffe.net.compare import Comparison, compare_nets, reference_of
from pycaffe.net.debug_info import log_backward, log_forward
from pycaffe.net.precision import check_lowers, choose_engine, session_maker
from pycaffe.net.weights import copy_weights, save_hdf5, save_weights, share_weights
from pycaffe.proto.dialect import resolve_dialect
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.prototxt import load_net
from pycaffe.proto.upgrade import upgrade_net_as_needed
from pycaffe.threads import checked_threads

__all__ = ["Net", "Outputs", "TEST", "TRAIN"]

TRAIN, TEST = 0, 1
Path = str | os.PathLike[str]
Callback = Callable[[int], Any]
logger = logging.getLogger("pycaffe.net")


class Net(BatchedNet):
    """A Caffe net.

    Args:
        network_file: a prototxt of any age, or a NetParameter.
        phase: `caffe.TRAIN` or `caffe.TEST`. The original's old form `Net(file, weights, phase)` works, too.
        level, stages: with the phase, the state that layers' include and exclude rules are held against (0, none).
        weights: a `.caffemodel` or `.caffemodel.h5` to copy from.
        engine: "torch", "onnxruntime" or "openvino" to use that one alone; None chooses by layer.
        device: "cpu" or "cuda:N"; None follows `caffe.set_mode_gpu()` and `caffe.set_device()`.
        threads: threads of one forward; None follows `caffe.set_num_threads`, by default one for each core.
        map_weights: whether weights stay in the file's pages until written; False copies them.
        precision: "float32"; "bfloat16" on openvino, fast on CPUs with bfloat16 instructions (AMX, AVX512_BF16) and
            slower than float32 on others; "int8" on onnxruntime. `compare` reports what they cost in accuracy.
        calibration: for int8, some 20 to 200 inputs that are like those at inference: arrays (C, H, W) or (N, C, H, W)
            as the net takes them, or dicts of arrays by input name. They are run again whenever a session is made.
        dialect: whose meaning layer types have that Caffe's forks use differently: "ssd", "yolo", "segnet", "rfcn",
            "frcnn" or "opencv"; None follows the environment's PYCAFFE_DIALECT, by default "opencv".

    Raises:
        ProtoError, NetError, WeightsError: the file, the net or the weights are wrong.
        InputError: engine, precision, device and calibration do not go together, or there is no such dialect.
        MissingExtra: the engine's library is not installed.
        DeviceError: `device` is not there.
    """

    def __init__(
        self,
        network_file: Path | Any,
        phase: int | Path = TEST,
        level: int | None = None,
        stages: Iterable[str] | None = None,
        weights: Path | None = None,
        *,
        engine: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        map_weights: bool = True,
        precision: str = "float32",
        calibration: Iterable[Any] | None = None,
        dialect: str | None = None,
    ) -> None:
        if isinstance(phase, (str, os.PathLike)):
            logger.warning("Net(file, weights, phase) is the old form; use Net(file, phase, weights=weights).")
            weights, phase, level = phase, TEST if level is None else level, None
        if phase not in (TRAIN, TEST):
            raise InputError(f"Unknown phase {phase!r}. Expected caffe.TRAIN (0) or caffe.TEST (1).")
        engine = choose_engine(engine, precision, calibration is not None, device, phase)
        self._device = check_device(device) if device is not None else None
        self._engine, self._threads, self._map_weights = engine, checked_threads(threads), map_weights
        self._precision = precision
        self._recipe = (_source(network_file, dialect), phase, level or 0, list(stages or []))
        super().__init__(build_graph(*self._recipe))
        self._lock = threading.RLock()
        _nets.add(self)
        self.debug_info: bool = self._graph.debug_info  # a solver sets it for the iterations that it displays
        self._wants_gradient = False
        self._loss_layers = [i for i, node in enumerate(self._graph.nodes) if any(node.loss_weights)]
        self._engines: dict[str, tuple[OnnxRuntimeEngine, TorchEngine]] = {}
        self._callbacks: dict[str, list[Callback]] = {
            name: [] for name in ("before_forward", "after_forward", "before_backward", "after_backward")
        }
        self._calibration = None
        if calibration is not None:
            check_lowers(self._graph)
            self._calibration = Calibration(self, calibration)
        if weights is not None:
            self.copy_from(weights)

    # -- forward

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, FloatArray]:
        """Runs the net, or the layers from `start` to `end` (both included).

        Args:
            blobs: names of blobs to return beside the outputs.
            start: name of the first layer to run; None for the net's first.
            end: name of the last layer to run; None for the net's last.
            kwargs: values for the inputs, by blob name; all of them or none.

        Returns:
            Live views by blob name: of the net's outputs, or with `end` of that layer's tops. A layer's name finds its
            top as well (OpenCV names outputs so): `out["relu4"]` is `out["dense"]` where relu4 works on it in place.
        """
        first, last = self._index(start, 0), self._index(end, len(self._graph.nodes) - 1)
        names = self.top_names[end] if end is not None else self._output_names
        with self._lock:  # no other thread's forward between this one's inputs and its run
            if kwargs:
                mismatch = "Input blob arguments do not match net inputs."
                self._set(kwargs, self.inputs, mismatch, "Input is not batch sized", "data")
            self._forward(first, last)
        views = {name: self._blob(name).data for name in (dict.fromkeys([*names, *blobs]) if blobs else names)}
        return Outputs(views, self.top_names)

    def _forward(self, start: int, end: int) -> float:
        """Runs the layers with indices `start` to `end`; returns the weighted loss."""
        check_range(self._graph, start, end)
        with self._lock:
            by_layer = self.debug_info or self._callbacks["before_forward"] or self._callbacks["after_forward"]
            index = start
            while index <= end:
                self._call("before_forward", index)
                done = self._run_from(index, index if by_layer else end)
                if self.debug_info:
                    log_forward(self._graph, index)
                self._call("after_forward", index)
                index = done + 1
            return sum(self._loss(i) for i in self._loss_layers if start <= i <= end)

    def _run_from(self, index: int, end: int) -> int:
        """Runs layer `index` and, where they can go together, layers after it; returns the last that ran."""
        node = self._graph.nodes[index]
        if isinstance(node.layer, HostLayer) and node.type != "Input":
            self._graph.reshape_node(index)
            with node.located_errors():
                node.layer.forward_blobs(self._graph.bottoms(node), self._graph.tops(node))
            return index
        compiled, eager = self._engine_pair()
        if self._compiles():
            last = compiled.run(index, end)
            if last >= index:
                return last
            if self._engine in ("onnxruntime", "openvino") and node.type != "Input":
                raise NetError(
                    f"Layer {node.name!r} ({node.type}) has no ONNX form, and engine={self._engine!r} was asked for."
                )
            end = index  # what follows may run compiled again
        return eager.run(index, end, record=self._graph.phase == TRAIN or self._wants_gradient)

    def _compiles(self) -> bool:
        if self._engine is not None:
            return self._engine != "torch"
        return self._graph.phase == TEST and not self._wants_gradient and runs_on(self._device or default_device())

    def _engine_pair(self) -> tuple[OnnxRuntimeEngine, TorchEngine]:
        device = self._device or default_device()
        if device not in self._engines:
            create = session_maker(self._engine, self._precision, self._calibration)
            compiled = OnnxRuntimeEngine(self._graph, device, self._threads, create)
            self._engines[device] = pair = compiled, TorchEngine(self._graph, device, compiled.overwritten)
            compiled.by_layer = None if self._engine else partial(pair[1].run, record=False)
        return self._engines[device]

    def prepare_to_fork(self, extent: int, outputs: Iterable[str]) -> None:
        """Makes the sessions of a forward for one batch extent, which children of a fork may then use, too.

        Only for a process without threads, with a net of `threads=1`: in all others a child's sessions are made anew.
        Extents above 1 come first, since their session may serve 1 as well.

        Args:
            extent: of each input's first axis.
            outputs: names of all blobs that are going to be looked at after a forward.

        Raises:
            NetError: a layer refuses the extent.
        """
        compiled, _ = self._engine_pair()
        compiled.keep_at_fork(self._graph.blob_names.index(name) for name in outputs)
        for name in self.inputs:
            blob = self._blob(name)
            blob.reshape(extent, *blob.shape[1:])
        end = len(self._graph.nodes) - 1
        index = 0
        while self._compiles() and index <= end:
            index = max(index, compiled.prepare(index, end)) + 1

    def _loss(self, index: int) -> float:
        node = self._graph.nodes[index]
        return sum(
            float(np.vdot(blob.raw_data(), blob.raw_diff()))
            for blob, weight in zip(self._graph.tops(node), node.loss_weights)
            if weight
        )

    def compare(self, inputs: Iterable[Any], other: Net | None = None) -> Comparison:
        """Runs this net and a reference on the same inputs and says how far their outputs are apart.

        Args:
            inputs: arrays (C, H, W) or (N, C, H, W), or dicts of arrays by input name.
            other: the reference; None takes the same net in float32, on torch where that is installed.

        Returns:
            By output, the largest error, that relative to the largest value, the worst cosine, and how often the
            largest value is at the same index. The net's blobs hold the last input's values afterwards.

        Raises:
            InputError: there is no input, one of them does not fit, or the nets have different outputs.
        """
        return compare_nets(self, inputs, other if other is not None else reference_of(self))

    def _sibling(self, engine: str) -> Net:
        """The same net in float32 with blobs of its own, over this one's parameters."""
        source, phase, level, stages = self._recipe
        sibling = Net(source, phase, level, stages, engine=engine, threads=self._threads)
        sibling.share_with(self)
        return sibling

    # -- backward

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, FloatArray]:
        """Runs backward from layer `start` (the last) down to `end` (the first), both included.

        Args:
            diffs: names of blobs whose diffs to return beside the inputs'.
            start: name of the layer to begin with; None for the net's last.
            end: name of the layer to end with; None for the net's first.
            kwargs: values for the diffs of the net's outputs, by blob name; all of them or none.

        Returns:
            Live views by blob name: diffs of the net's inputs, or with `end` of that layer's bottoms.
        """
        first, last = self._index(start, len(self._graph.nodes) - 1), self._index(end, 0)
        names = self.bottom_names[end] if end is not None else self.inputs
        with self._lock:
            if kwargs:
                mismatch = "Top diff arguments do not match net outputs."
                self._set(kwargs, self.outputs, mismatch, "Diff is not batch sized", "diff")
            self._backward(first, last)
        return {name: self._blob(name).diff for name in dict.fromkeys([*names, *(diffs or [])])}

    def _backward(self, start: int, end: int) -> None:
        """Runs backward over the layers with indices `start` down to `end`."""
        check_range(self._graph, start, end)
        with self._lock:
            by_layer = self.debug_info or self._callbacks["before_backward"] or self._callbacks["after_backward"]
            index = start
            while index >= end:
                self._call("before_backward", index)
                done = self._run_back_from(index, index if by_layer else end)
                if self.debug_info and self._graph.nodes[index].need_backward:
                    log_backward(self._graph, index)
                self._call("after_backward", index)
                index = done - 1

    def _run_back_from(self, index: int, end: int) -> int:
        """Runs backward of layer `index` and, where they can go together, of layers before it; returns the last."""
        node = self._graph.nodes[index]
        if not node.need_backward or node.type == "Input":
            return index
        if isinstance(node.layer, HostLayer):
            tops, bottoms = self._graph.tops(node), self._graph.bottoms(node)
            node.layer.backward_blobs(tops, list(node.bottom_need_backward), bottoms)
            return index
        done = self._engine_pair()[1].backward(index, end)
        self._wants_gradient = True  # not before: without torch, forward must go on compiled
        return done

    # -- inputs from memory

    def set_input_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        """Hands arrays to the MemoryData layer at the head of the net, without copying.

        Args:
            data: (K * batch_size, C, H, W) float32, C-contiguous.
            labels: as many, (N,) or (N, 1, 1, 1) float32.
        """
        if labels.ndim == 1:
            labels = np.ascontiguousarray(labels[:, np.newaxis, np.newaxis, np.newaxis])
        self._set_input_arrays(data, labels)

    def _set_input_arrays(self, data: FloatArray, labels: FloatArray) -> None:
        first = self._graph.nodes[0].layer if self._graph.nodes else None
        if first is None or first.type != "MemoryData":
            raise NetError("set_input_arrays may only be called if the first layer is a MemoryDataLayer.")
        first.reset(data, labels)  # type: ignore[attr-defined]

    # -- shapes and parameters

    def reshape(self) -> None:
        """Gives every blob the shape that follows from the inputs' present shapes; forward does so by itself."""
        with self._lock:
            for index in range(len(self._graph.nodes)):
                self._graph.reshape_node(index)

    def copy_from(self, weights: Path) -> None:
        """Copies parameters by layer name from a `.caffemodel` or `.caffemodel.h5`.

        Layers that this net does not have are ignored. Nothing is changed where anything does not fit.

        Raises:
            WeightsError: the file is damaged, or a layer's blobs do not fit in number or shape.
        """
        with self._lock:
            copy_weights(self._graph, weights, map_weights=self._map_weights)

    load_hdf5 = copy_from

    def share_with(self, other: Net) -> None:
        """Uses the parameters (not the diffs) of the layers of `other` that have the same name."""
        with self._lock:
            share_weights(self._graph, other._graph)

    def save(self, path: Path) -> None:
        """Writes structure and parameters as a `.caffemodel`."""
        save_weights(self._graph, path)

    def save_hdf5(self, path: Path) -> None:
        """Writes the parameters as a `.caffemodel.h5`."""
        save_hdf5(self._graph, path)

    def clear_param_diffs(self) -> None:
        """Sets the diffs of all parameters to zero."""
        for parameter in self._graph.parameters:
            parameter.blob.diff_storage.clear()

    # -- callbacks

    def before_forward(self, function: Callback) -> None:
        """Calls `function(layer_index)` before each layer's forward; the net then runs layer by layer."""
        self._callbacks["before_forward"].append(function)

    def after_forward(self, function: Callback) -> None:
        """Calls `function(layer_index)` after each layer's forward; the net then runs layer by layer."""
        self._callbacks["after_forward"].append(function)

    def before_backward(self, function: Callback) -> None:
        """Calls `function(layer_index)` before each layer's backward."""
        self._callbacks["before_backward"].append(function)

    def after_backward(self, function: Callback) -> None:
        """Calls `function(layer_index)` after each layer's backward."""
        self._callbacks["after_backward"].append(function)

    def _call(self, when: str, index: int) -> None:
        for function in self._callbacks[when]:
            function(index)

    # -- arguments

    def _index(self, layer: str | None, default: int) -> int:
        if layer is None:
            return default
        if layer not in self._layer_names:
            raise InputError(f"{layer!r} is not in list of layers. The net has {self._layer_names!r}.")
        return self._layer_names.index(layer)

    def _blob(self, name: str) -> Blob:
        if name not in self._blobs_by_name:
            raise InputError(f"The net has no blob {name!r}. It has {list(self._blobs_by_name)!r}.")
        return self._blobs_by_name[name]

    def _set(self, values: dict[str, Any], names: Sequence[str], mismatch: str, not_sized: str, part: str) -> None:
        if set(values) != set(names):
            raise InputError(f"{mismatch} Expected {sorted(names)!r}, got {sorted(values)!r}.")
        for name, value in values.items():
            view = getattr(self._blobs_by_name[name], part)
            if np.shape(value)[:1] != view.shape[:1]:
                raise InputError(
                    f"{not_sized}. Blob {name!r} has shape {view.shape!r}, got {np.shape(value)!r}; "
                    "reshape the blob first."
                )
            view[...] = value


class Outputs(dict[str, FloatArray]):
    """Arrays by blob name, which also answers to the name of the layer that made one."""

    def __init__(self, views: dict[str, FloatArray], top_names: Mapping[str, list[str]]) -> None:
        super().__init__(views)
        self._top_names = top_names

    def __missing__(self, name: str) -> FloatArray:
        tops = [top for top in self._top_names.get(name, []) if top in self]
        if len(tops) != 1:
            raise KeyError(name)
        return self[tops[0]]


def _source(network: Path | Any, dialect: str | None) -> NetSource:
    source = _upgraded(network)
    return dataclasses.replace(source, dialect=resolve_dialect(source.dialect if dialect is None else dialect))


def _upgraded(network: Path | Any) -> NetSource:
    if isinstance(network, (str, os.PathLike)):
        return load_net(network)
    if isinstance(network, NetSource):
        return network
    if not hasattr(network, "CopyFrom"):
        raise InputError(f"Expected the path of a prototxt or a NetParameter, got {network!r}.")
    source = NetSource(type(network)())
    source.param.CopyFrom(network)
    upgrade_net_as_needed(source)
    return source


_nets: weakref.WeakSet[Net] = weakref.WeakSet()


def _free_locks_in_child() -> None:
    """Another thread may have held a net's lock at the fork; it does not exist in the child and would never let go."""
    for net in list(_nets):
        net._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_locks_in_child)
