"""`Net`: blobs, parameters, forward, backward, with pycaffe's names; it chooses the engine.

A forward of a TEST-phase net runs compiled (onnxruntime) wherever its layers have an ONNX form; TRAIN-phase nets, layers
without one, and nets that have been asked for a backward run on torch, layer by layer. Readers, writers and Python layers
run on the host between. One lock per net makes concurrent calls from several threads take turns, as the original's GIL did.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from pycaffe import devices
from pycaffe.blob import Blob, FloatArray
from pycaffe.engines.onnxruntime_engine import OnnxRuntimeEngine
from pycaffe.engines.torch_engine import TorchEngine
from pycaffe.errors import InputError, NetError
from pycaffe.graph import Graph, build_graph, check_range
from pycaffe.layers import HostLayer
from pycaffe.net_weights import copy_weights, save_hdf5, save_weights, share_weights
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.prototxt import load_net
from pycaffe.proto.upgrade import upgrade_net_as_needed

__all__ = ["TEST", "TRAIN", "Net"]

TRAIN, TEST = 0, 1
ENGINES = ("torch", "onnxruntime")
Path = str | os.PathLike[str]
Callback = Callable[[int], Any]
logger = logging.getLogger("pycaffe.net")


class Net:
    """A Caffe net.

    Args:
        network_file: a prototxt of any age, or a NetParameter.
        phase: `caffe.TRAIN` or `caffe.TEST`. The original's old form `Net(file, weights, phase)` works, too.
        level, stages: with the phase, the state that layers' include and exclude rules are held against.
        weights: a `.caffemodel` or `.caffemodel.h5` to copy from.
        engine: "torch" or "onnxruntime" to use that one alone; None chooses by layer.
        device: "cpu" or "cuda:N"; None follows `caffe.set_mode_gpu()` and `caffe.set_device()`.
        threads: threads of one forward; None takes one for each core.
        map_weights: whether weights stay in the file's pages until written; False copies them.

    Raises:
        ProtoError, NetError, WeightsError: the file, the net or the weights are wrong.
        DeviceError: `device` is not there.
    """

    def __init__(
        self,
        network_file: Path | Any,
        phase: int | Path = TEST,
        level: int = 0,
        stages: Iterable[str] | None = None,
        weights: Path | None = None,
        *,
        engine: str | None = None,
        device: str | None = None,
        threads: int | None = None,
        map_weights: bool = True,
    ) -> None:
        if isinstance(phase, (str, os.PathLike)):
            logger.warning("Net(file, weights, phase) is the old form; use Net(file, phase, weights=weights).")
            weights, phase, level = phase, level, 0
        if engine is not None and engine not in ENGINES:
            raise NetError(f"Unknown engine {engine!r}. Expected one of {ENGINES!r} or None.")
        self._device = devices.check_device(device) if device is not None else None
        self._engine, self._threads, self._map_weights = engine, threads, map_weights
        self._graph: Graph = build_graph(_source(network_file), phase, level, list(stages or []))
        self._lock = threading.RLock()
        self._wants_gradient = False
        self._engines: dict[str, tuple[OnnxRuntimeEngine, TorchEngine]] = {}
        self._callbacks: dict[str, list[Callback]] = {
            name: [] for name in ("before_forward", "after_forward", "before_backward", "after_backward")
        }
        self._blobs_by_name = OrderedDict(zip(self._graph.blob_names, self._graph.blobs))
        if weights is not None:
            self.copy_from(weights)

    # -- structure

    @property
    def blobs(self) -> OrderedDict[str, Blob]:
        """Blobs by name, from input to output."""
        return self._blobs_by_name

    @property
    def params(self) -> OrderedDict[str, list[Blob]]:
        """Parameters by layer name; layers without any are left out."""
        return OrderedDict((n.name, n.layer.blobs) for n in self._graph.nodes if n.layer.blobs)

    @property
    def layers(self) -> list[Any]:
        """The layers in order; a Python layer is the user's own object."""
        return [node.layer.user_layer for node in self._graph.nodes]

    @property
    def layer_dict(self) -> OrderedDict[str, Any]:
        """Layers by name."""
        return OrderedDict(zip(self._layer_names, self.layers))

    @property
    def inputs(self) -> list[str]:
        """Names of the tops of Input layers, in file order."""
        return [self._graph.blob_names[i] for i in self._graph.inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of the blobs that no layer reads, sorted."""
        return [self._graph.blob_names[i] for i in self._graph.outputs]

    @property
    def top_names(self) -> OrderedDict[str, list[str]]:
        """By layer name, the names of its tops."""
        return OrderedDict((n.name, [self._graph.blob_names[i] for i in n.top]) for n in self._graph.nodes)

    @property
    def bottom_names(self) -> OrderedDict[str, list[str]]:
        """By layer name, the names of its bottoms."""
        return OrderedDict((n.name, [self._graph.blob_names[i] for i in n.bottom]) for n in self._graph.nodes)

    @property
    def blob_loss_weights(self) -> OrderedDict[str, float]:
        """Loss weights by blob name."""
        return OrderedDict(zip(self._graph.blob_names, self._graph.loss_weights))

    # The underscored names are the original's C++ ones; scripts use them.

    @property
    def _layer_names(self) -> list[str]:
        return [node.name for node in self._graph.nodes]

    @property
    def _blob_names(self) -> list[str]:
        return list(self._graph.blob_names)

    @property
    def _blobs(self) -> list[Blob]:
        return list(self._graph.blobs)

    @property
    def _blob_loss_weights(self) -> list[float]:
        return list(self._graph.loss_weights)

    @property
    def _inputs(self) -> list[int]:
        return list(self._graph.inputs)

    @property
    def _outputs(self) -> list[int]:
        return list(self._graph.outputs)

    def _bottom_ids(self, layer: int) -> list[int]:
        return list(self._graph.nodes[layer].bottom)

    def _top_ids(self, layer: int) -> list[int]:
        return list(self._graph.nodes[layer].top)

    # -- forward

    def forward(
        self, blobs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, FloatArray]:
        """Runs the net, or the layers from `start` to `end` (both included).

        Args:
            blobs: names of blobs to return beside the outputs.
            kwargs: values for the inputs, by blob name; all of them or none.

        Returns:
            Live views by blob name: of the net's outputs, or with `end` of that layer's tops.
        """
        first, last = self._index(start, 0), self._index(end, len(self._graph.nodes) - 1)
        names = self.top_names[end] if end is not None else self.outputs
        self._set(
            kwargs, self.inputs, "Input blob arguments do not match net inputs.", "Input is not batch sized", "data"
        )
        self._forward(first, last)
        return {name: self._blob(name).data for name in dict.fromkeys([*names, *(blobs or [])])}

    def _forward(self, start: int, end: int) -> float:
        """Runs the layers with indices `start` to `end`; returns the weighted loss."""
        check_range(self._graph, start, end)
        with self._lock:
            by_layer = self._graph.debug_info or self._callbacks["before_forward"] or self._callbacks["after_forward"]
            index = start
            while index <= end:
                self._call("before_forward", index)
                done = self._run_from(index, index if by_layer else end)
                if self._graph.debug_info:
                    self._log_forward(index)
                self._call("after_forward", index)
                index = done + 1
            return sum(self._loss(i) for i in range(start, end + 1))

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
        self._graph.reshape_node(index)
        if node.type != "Input":
            if self._engine == "onnxruntime":
                raise NetError(
                    f"Layer {node.name!r} ({node.type}) has no ONNX form, and engine='onnxruntime' was asked for."
                )
            eager.forward(index, record=self._graph.phase == TRAIN or self._wants_gradient)
        return index

    def _compiles(self) -> bool:
        if self._engine is not None:
            return self._engine == "onnxruntime"
        return self._graph.phase == TEST and not self._wants_gradient

    def _engine_pair(self) -> tuple[OnnxRuntimeEngine, TorchEngine]:
        device = self._device or devices.default_device()
        if device not in self._engines:
            self._engines[device] = (
                OnnxRuntimeEngine(self._graph, device, self._threads),
                TorchEngine(self._graph, device),
            )
        return self._engines[device]

    def _loss(self, index: int) -> float:
        node = self._graph.nodes[index]
        return sum(
            float(np.vdot(blob.raw_data(), blob.raw_diff()))
            for blob, weight in zip(self._graph.tops(node), node.loss_weights)
            if weight
        )

    # -- backward

    def backward(
        self, diffs: Sequence[str] | None = None, start: str | None = None, end: str | None = None, **kwargs: Any
    ) -> dict[str, FloatArray]:
        """Runs backward from layer `start` (the last) down to `end` (the first), both included.

        Args:
            diffs: names of blobs whose diffs to return beside the inputs'.
            kwargs: values for the diffs of the net's outputs, by blob name; all of them or none.

        Returns:
            Live views by blob name: diffs of the net's inputs, or with `end` of that layer's bottoms.
        """
        first, last = self._index(start, len(self._graph.nodes) - 1), self._index(end, 0)
        names = self.bottom_names[end] if end is not None else self.inputs
        self._set(
            kwargs, self.outputs, "Top diff arguments do not match net outputs.", "Diff is not batch sized", "diff"
        )
        self._backward(first, last)
        return {name: self._blob(name).diff for name in dict.fromkeys([*names, *(diffs or [])])}

    def _backward(self, start: int, end: int) -> None:
        """Runs backward over the layers with indices `start` down to `end`."""
        check_range(self._graph, start, end)
        with self._lock:
            self._wants_gradient = True
            for index in range(start, end - 1, -1):
                node = self._graph.nodes[index]
                self._call("before_backward", index)
                if node.need_backward and node.type != "Input":
                    if isinstance(node.layer, HostLayer):
                        node.layer.backward_blobs(
                            self._graph.tops(node), list(node.bottom_need_backward), self._graph.bottoms(node)
                        )
                    else:
                        self._engine_pair()[1].backward(index)
                    if self._graph.debug_info:
                        self._log_backward(index)
                self._call("after_backward", index)

    # -- batches

    def forward_all(self, blobs: Sequence[str] | None = None, **kwargs: Any) -> dict[str, FloatArray]:
        """Runs `forward` in batches over inputs of any length; the last batch is padded and the padding dropped.

        Returns:
            By blob name, the results of all items.
        """
        collected: dict[str, list[FloatArray]] = {name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])}
        for batch in self._batch(kwargs):
            for name, values in self.forward(blobs=blobs, **batch).items():
                collected[name].extend(values.copy())
        return _without_padding(collected, kwargs)

    def forward_backward_all(
        self, blobs: Sequence[str] | None = None, diffs: Sequence[str] | None = None, **kwargs: Any
    ) -> tuple[dict[str, FloatArray], dict[str, FloatArray]]:
        """Runs `forward` and `backward` in batches.

        Args:
            kwargs: values by name, for inputs (forward) and outputs (their diffs, backward).

        Returns:
            All blobs and all diffs, by name.
        """
        all_blobs: dict[str, list[FloatArray]] = {name: [] for name in dict.fromkeys([*self.outputs, *(blobs or [])])}
        all_diffs: dict[str, list[FloatArray]] = {name: [] for name in dict.fromkeys([*self.inputs, *(diffs or [])])}
        forward_batches = self._batch({name: kwargs[name] for name in self.inputs if name in kwargs})
        backward_batches = self._batch({name: kwargs[name] for name in self.outputs if name in kwargs})
        for inputs, top_diffs in zip_longest(forward_batches, backward_batches, fillvalue={}):
            for name, values in self.forward(blobs=blobs, **inputs).items():
                all_blobs[name].extend(values.copy())
            for name, values in self.backward(diffs=diffs, **top_diffs).items():
                all_diffs[name].extend(values.copy())
        return _without_padding(all_blobs, kwargs), _without_padding(all_diffs, kwargs)

    def _batch(self, blobs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Cuts equally long inputs into batches of the net's size; the last one is filled up with zeros."""
        if not blobs:
            return
        num = len(next(iter(blobs.values())))
        size = next(iter(self._graph.blobs)).shape[0]
        for begin in range(0, num, size):
            batch = {name: values[begin : begin + size] for name, values in blobs.items()}
            missing = begin + size - num
            if missing > 0:
                batch = {
                    name: np.concatenate([values, np.zeros((missing, *np.shape(values)[1:]))])
                    for name, values in batch.items()
                }
            yield batch

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
            parameter.blob.raw_diff()[...] = 0

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

    # -- debug_info, in the original's words, which people's scripts parse

    def _log_forward(self, index: int) -> None:
        node = self._graph.nodes[index]
        for blob in node.top:
            mean = _mean_magnitude(self._graph.blobs[blob].raw_data())
            logger.info("    [Forward] Layer %s, top blob %s data: %g", node.name, self._graph.blob_names[blob], mean)
        for parameter in self._graph.parameters:
            if parameter.layer == index:
                mean = _mean_magnitude(parameter.blob.raw_data())
                logger.info("    [Forward] Layer %s, param blob %s data: %g", node.name, parameter.display_name, mean)

    def _log_backward(self, index: int) -> None:
        node = self._graph.nodes[index]
        for blob, need in zip(node.bottom, node.bottom_need_backward):
            if need:
                mean = _mean_magnitude(self._graph.blobs[blob].raw_diff())
                logger.info(
                    "    [Backward] Layer %s, bottom blob %s diff: %g", node.name, self._graph.blob_names[blob], mean
                )
        for i, (parameter, need) in enumerate(zip(node.layer.blobs, node.layer.param_propagate_down)):
            if need:
                logger.info(
                    "    [Backward] Layer %s, param blob %d diff: %g",
                    node.name,
                    i,
                    _mean_magnitude(parameter.raw_diff()),
                )

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
        if values and set(values) != set(names):
            raise InputError(f"{mismatch} Expected {sorted(names)!r}, got {sorted(values)!r}.")
        for name, value in values.items():
            view = getattr(self._blobs_by_name[name], part)
            if np.shape(value)[:1] != view.shape[:1]:
                raise InputError(
                    f"{not_sized}. Blob {name!r} has shape {view.shape!r}, got {np.shape(value)!r}; reshape the blob first."
                )
            view[...] = value


def _source(network: Path | Any) -> NetSource:
    if isinstance(network, (str, os.PathLike)):
        return load_net(network)
    if isinstance(network, NetSource):
        return network
    source = NetSource(type(network)())
    source.param.CopyFrom(network)
    upgrade_net_as_needed(source)
    return source


def _without_padding(collected: dict[str, list[FloatArray]], given: dict[str, Any]) -> dict[str, FloatArray]:
    count = len(next(iter(given.values()))) if given else None
    return {name: np.asarray(values)[:count] for name, values in collected.items()}


def _mean_magnitude(array: FloatArray) -> float:
    return float(np.abs(array).mean()) if array.size else 0.0
