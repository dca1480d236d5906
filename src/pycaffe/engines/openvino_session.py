"""OpenVINO as what runs a segment: the same ONNX nodes, compiled by OpenVINO's CPU plugin, in float32 or bfloat16.

OpenVINO cannot be handed the initializers of an ONNX model in memory. So the model is read with its parameters as
inputs, and each of these is then replaced by a constant over the array where it lies: the weights are not copied until
the plugin packs them for its kernels.

After a fork the child drops its sessions as it does those of onnxruntime (see `onnxruntime_engine.py`) and compiles
anew, without the threads of the parent's pool; `spawn` is the documented way to use several processes.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray, Shape
from pycaffe.engines.segment import Segment
from pycaffe.errors import MissingExtra, NetError

__all__ = ["OpenVinoSession", "check_openvino", "has_native_bfloat16"]

TYPES = {"float32": "f32", "bfloat16": "bf16"}  # as INFERENCE_PRECISION_HINT names them
MAX_COMPILED = 2  # of one session, by the shapes of its inputs; each holds packed weights of its own
logger = logging.getLogger("pycaffe.engines")
_warned = False


class OpenVinoSession:
    """One segment compiled by OpenVINO; runs like an onnxruntime session.

    Args:
        segment: the model and its parameters' names.
        values: the parameters' values, which are used where they lie.
        threads: threads inside one run.
        precision: "float32" or "bfloat16". Inputs and outputs are float32 in any case. A CPU without bfloat16
            instructions (AMX_BF16 or AVX512_BF16) computes with rounded values all the same, but emulated and several
            times slower than float32; one without AVX-512 computes in float32. Either is logged as a warning, once.

    Attributes:
        precision: in which it computes, in OpenVINO's words.

    Raises:
        MissingExtra: openvino is not installed.
        NetError: OpenVINO cannot read or compile the model.
    """

    def __init__(
        self, segment: Segment, values: Sequence[FloatArray], threads: int, precision: str = "float32"
    ) -> None:
        self._openvino = _import_openvino()
        self._core = self._openvino.Core()
        self._asked_for_bfloat16 = precision == "bfloat16"
        self._settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": TYPES[precision],
            "PERFORMANCE_HINT": "LATENCY",  # one run at a time, which has all threads
            "CACHE_DIR": "",
        }
        self._compiled: OrderedDict[tuple[Shape, ...], tuple[Any, dict[str, int]]] = OrderedDict()
        try:
            self._model = self._read(segment, values)
        except RuntimeError as error:
            raise NetError(f"OpenVINO cannot read layers {segment.start} to {segment.end}: {error}") from error
        has = {name for port in self._model.inputs for name in port.get_names()}  # what only gives its shape is gone
        self._input_names = [name for name, _ in segment.inputs if name in has]
        self._any_batch = self._model.is_dynamic()
        if not self._any_batch:
            self._request(tuple(tuple(port.shape) for port in self._ports()))
            del self._model  # and with it the last constants that were not packed

    def run(self, names: Sequence[str], inputs: dict[str, FloatArray]) -> list[FloatArray]:
        """The values of the outputs `names`, in arrays of their own."""
        arrays = [inputs[name] for name in self._input_names]
        request, index = self._request(tuple(array.shape for array in arrays))
        try:
            request.infer(dict(zip(self._input_names, arrays)), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise NetError(f"OpenVINO cannot run this net: {error}") from error
        return [np.array(request.get_output_tensor(index[name]).data) for name in names]

    # -- making it

    def _read(self, segment: Segment, values: Sequence[FloatArray]) -> Any:
        from onnx import ModelProto, TensorProto, helper

        arrays = {name: value for (name, _, _), value in zip(segment.parameters, values)}
        open_model = ModelProto()
        open_model.CopyFrom(segment.model)
        graph = open_model.graph
        constants = [tensor for tensor in graph.initializer if tensor.name not in arrays]
        del graph.initializer[:]
        graph.initializer.extend(constants)
        graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in arrays.items()
        )
        model = self._core.read_model(open_model.SerializeToString())
        for parameter in model.get_parameters():
            for name in parameter.output(0).get_names() & arrays.keys():  # it may have other names beside
                constant = self._openvino.op.Constant(arrays[name], shared_memory=True)
                parameter.output(0).replace(constant.output(0))
                model.remove_parameter(parameter)
        model.validate_nodes_and_infer_types()
        return model

    def _ports(self) -> list[Any]:
        return [self._model.input(name) for name in self._input_names]

    def _request(self, shapes: tuple[Shape, ...]) -> tuple[Any, dict[str, int]]:
        """What runs inputs of these shapes, and where in its outputs each name is."""
        if shapes not in self._compiled:
            try:
                if self._any_batch:  # kernels for a fixed shape are faster
                    self._model.reshape({port: list(shape) for port, shape in zip(self._ports(), shapes)})
                compiled = self._core.compile_model(self._model, "CPU", self._settings)
            except RuntimeError as error:
                raise NetError(f"OpenVINO cannot compile this net for inputs of shapes {shapes!r}: {error}") from error
            self.precision = str(compiled.get_property("INFERENCE_PRECISION_HINT"))
            if self._asked_for_bfloat16:
                _warn_without_bfloat16(self.precision)
            index = {name: i for i, port in enumerate(compiled.outputs) for name in port.get_names()}
            self._compiled[shapes] = compiled.create_infer_request(), index
        self._compiled.move_to_end(shapes)
        while len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return self._compiled[shapes]


def check_openvino() -> None:
    """Checks that openvino is installed, without importing it.

    Raises:
        MissingExtra: it is not.
    """
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtra.of("openvino", "openvino", "engine='openvino'")


def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers by instructions of its own, as OpenVINO sees it."""
    return "BF16" in _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _import_openvino() -> Any:
    """OpenVINO without its telemetry.

    `import openvino` would report itself to Intel over the network, from a process that it forks off this one:
    neither is what somebody asked for who runs a net. It takes an absent `openvino_telemetry` for a no.
    """
    check_openvino()
    if "openvino" in sys.modules or "openvino_telemetry" in sys.modules:
        return importlib.import_module("openvino")
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        return importlib.import_module("openvino")
    finally:
        del sys.modules["openvino_telemetry"]


def _warn_without_bfloat16(precision: str) -> None:
    """Says once what a CPU without bfloat16 instructions does in their place."""
    global _warned
    if not _warned and not has_native_bfloat16():
        _warned = True
        instead = "computed in float32" if "float32" in precision else "emulated and slower than float32"
        logger.warning("This CPU has no bfloat16 instructions: precision='bfloat16' is %s.", instead)
