"""`Net`: the methods of `cv2.dnn.Net` over a compiled Caffe net."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.blob import FloatArray
from pycaffe.cv2dnn.inspection import Ids, Inspection, LayerEntry
from pycaffe.cv2dnn.opencv_error import raises_opencv_errors
from pycaffe.cv2dnn.quantization import Quantization, measure
from pycaffe.devices import gpu_count
from pycaffe.errors import InputError, NetError
from pycaffe.net import TEST
from pycaffe.net import Net as CaffeNet
from pycaffe.proto.net_source import NetSource

__all__ = ["AsyncArray", "Net"]

# DNN_TARGET_OPENCL, OPENCL_FP16, VULKAN, CUDA, CUDA_FP16
GPU_TARGETS = {1, 2, 4, 6, 7}
logger = logging.getLogger("pycaffe.cv2dnn")


@raises_opencv_errors
class Net(Inspection):
    """A Caffe net with the methods, shapes and conventions of OpenCV 4's `cv2.dnn.Net`.

    `read_net_from_caffe` makes one. Inputs take any shape that the layers can work with; every answer is an array of
    its own, which later calls leave alone. Not to be used from several threads at once, as in OpenCV.

    Args:
        net: a TEST-phase net in which each layer has tops of its own.
        source: what it was built from.
    """

    def __init__(self, net: CaffeNet, source: NetSource) -> None:
        super().__init__(net, source)
        self._device = "cpu"
        self._inputs = [net.blobs[name] for name in net.inputs]
        self._was_set = [False] * len(self._inputs)
        self._quantization: Quantization | None = None
        self._last_run = (-1, 0)  # the index of the last layer that ran, and nanoseconds
        self._thread: ThreadPoolExecutor | None = None

    # -- inputs

    def setInput(self, blob: Any, name: str = "", scalefactor: float = 1.0, mean: Any = None) -> None:
        """Sets an input to (blob - mean) * scalefactor.

        Args:
            blob: an array of numbers of any shape; the net takes its shape over at the next forward. Copied.
            name: of the input; empty means the first.
            scalefactor: what the values are multiplied with after the mean was subtracted.
            mean: up to four values, one for each channel, or one for the first channel alone (as OpenCV's Scalar).

        Raises:
            InputError: no array of numbers, no values, no such input, or a mean for more than four channels.
        """
        number = self._input_number(name)
        values = _as_blob(blob)
        if self._quantization is not None:
            values = self._quantization.input_values(number, values)
        target = self._inputs[number]
        if target.shape != values.shape:
            target.reshape(*values.shape)
        into = target.raw_data()
        if mean is None or not np.any(mean):
            np.copyto(into, values, casting="unsafe")
        else:
            np.subtract(values, _mean_for(mean, values.shape), out=into, casting="unsafe")
        if scalefactor != 1.0:
            np.multiply(into, np.float32(scalefactor), out=into)
        self._was_set[number] = True

    def setInputShape(self, inputName: str, shape: Sequence[int]) -> None:
        """Gives an input a shape ahead of its values."""
        self._inputs[self._input_number(inputName)].reshape(*shape)

    def setInputsNames(self, inputBlobNames: Sequence[str]) -> None:
        """Gives the inputs other names, in order."""
        if len(inputBlobNames) != len(self._inputs):
            raise InputError(f"The net has {len(self._inputs)} inputs. Got the names {inputBlobNames!r}.")
        self._input_names = [str(name) for name in inputBlobNames]

    def _input_number(self, name: str) -> int:
        if not self._input_names:
            raise InputError("The net has no Input layer: there is nothing to set.")
        if not name:
            return 0
        if name not in self._input_names:
            raise InputError(f'Requested blob "{name}" not found. The net\'s inputs are {self._input_names!r}.')
        return self._input_names.index(name)

    # -- forward

    def forward(self, outputName: Any = "", outBlobNames: Sequence[str] | None = None) -> Any:
        """Runs the net as far as needed.

        Args:
            outputName: a layer; empty means the last one. A list of layers is taken for `outBlobNames`.
            outBlobNames: several layers.

        Returns:
            The first output of the layer, or a tuple of those of several layers.

        Raises:
            NetError: there is no such layer, or a layer cannot work with the inputs' shapes.
            InputError: an input was never set.
        """
        if outBlobNames is None and not isinstance(outputName, str):
            outBlobNames = outputName
        if outBlobNames is None:
            entry = self._wanted(outputName)
            self._run([entry])
            return self._output(entry)
        entries = [self._wanted(name) for name in outBlobNames] or [self._entries[-1]]
        self._run(entries)
        return tuple(self._output(entry) for entry in entries)

    def forwardAndRetrieve(self, outBlobNames: Sequence[str]) -> tuple[tuple[FloatArray, ...], ...]:
        """As `forward` of several layers, with all outputs of each."""
        entries = [self._wanted(name) for name in outBlobNames]
        if not entries:
            raise InputError("in Net::forward(), outBlobNames cannot be empty.")
        self._run(entries)
        return tuple(tuple(self._output(entry, i) for i in range(len(entry.tops))) for entry in entries)

    def forwardAsync(self, outputName: str = "") -> AsyncArray:
        """Starts `forward(outputName)` in a thread; OpenCV can on OpenVINO alone. Wait for it before the next call."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="pycaffe-forwardAsync")
        return AsyncArray(self._thread.submit(self.forward, outputName))

    def _wanted(self, name: str) -> LayerEntry:
        entry = self._entries[-1] if not name else self._entry(name)
        if entry.node < 0:
            raise NetError("Requested blob not found: inputs are no outputs.")
        return entry

    def _run(self, entries: Sequence[LayerEntry]) -> None:
        if not all(self._was_set):
            missing = [name for name, was_set in zip(self._input_names, self._was_set) if not was_set]
            raise InputError(f"inp.total() is 0: nothing was set as input {missing[0]!r}. Call setInput first.")
        last = max(entry.node for entry in entries)
        start = time.perf_counter_ns()
        self._net._forward(0, last)
        self._last_run = (last, time.perf_counter_ns() - start)

    def _output(self, entry: LayerEntry, number: int = 0) -> Any:
        values: FloatArray = self._net.blobs[entry.tops[number]].raw_data().copy()
        return values if self._quantization is None else self._quantization.output_values(entry.name, values)

    # -- structure

    def connect(self, outPin: str, inpPin: str) -> None:
        """Accepts a connection that the net has already; all others are made by the prototxt.

        Raises:
            NetError: one of the layers is not there, or the input is connected to another layer.
        """
        maker, reader = self._entry(outPin), self._entry(inpPin)
        bottoms = self._source_bottoms(self._net._graph.nodes[reader.node].name) if reader.node >= 0 else []
        if not set(maker.tops[:1]) & set(bottoms[:1]):
            raise NetError(
                f'Input #0 of layer "{inpPin}" already was connected. Change the prototxt to connect it anew.'
            )

    def registerOutput(self, outputName: str, layerId: int, outputPort: int) -> int:
        """Makes a layer's output one of the net's outputs, under a name; from then on only registered ones are.

        Returns:
            The id of the layer of that name: a new one of type Identity, or the layer itself for its own name.
        """
        entry = self._entry(int(layerId))
        known = self.getLayerId(outputName)
        if known >= 0 and (known != layerId or outputPort != 0):
            raise InputError(
                f"Layer with name='{outputName}' already exists id={known} (to be linked with {layerId}:{outputPort})."
            )
        if known < 0:
            if entry.node < 0 or not 0 <= outputPort < len(entry.tops):
                raise InputError(f"Layer {entry.name!r} has no output {outputPort!r}.")
            known = len(self._entries)
            self._entries.append(LayerEntry(outputName, "Identity", entry.node, (entry.tops[outputPort],)))
        self._registered[outputName] = known
        return known

    # -- parameters

    def getParam(self, layer: int | str, numParam: int = 0) -> FloatArray:
        """A copy of a layer's parameter blob; a vector has two axes, as in OpenCV."""
        entry, _ = self._blob(layer, numParam)
        return self._as_opencv_blob(entry, numParam)

    def setParam(self, layer: int | str, numParam: int, blob: Any) -> None:
        """Sets a layer's parameter blob; later forwards use it."""
        entry, target = self._blob(layer, numParam)
        values = np.asarray(blob, np.float32)
        if values.size != target.count:
            raise InputError(
                f"Param {numParam} of layer {entry.name!r} has shape {target.shape!r}. Got shape {values.shape!r}."
            )
        target.data[...] = values.reshape(target.shape)

    # -- how it runs

    def setPreferableBackend(self, backendId: int) -> None:
        """Accepted, so that scripts run: there is one backend, which is pycaffe."""

    def setPreferableTarget(self, targetId: int) -> None:
        """Chooses the device: a GPU for the OpenCL, Vulkan and CUDA targets where there is one, else the CPU."""
        device = "cuda:0" if targetId in GPU_TARGETS and gpu_count() else "cpu"
        if targetId in GPU_TARGETS and device == "cpu":
            logger.warning("setPreferableTarget(%s): this machine has no GPU; switching to the CPU.", targetId)
        if device == self._device:
            return
        net = CaffeNet(self._source, TEST, device=device)
        net.share_with(self._net)
        for name, blob in zip(net.inputs, self._inputs):
            net.blobs[name].reshape(*blob.shape)
            net.blobs[name].raw_data()[...] = blob.raw_data()
        self._net, self._device = net, device
        self._inputs = [net.blobs[name] for name in net.inputs]

    def enableFusion(self, fusion: bool) -> None:
        """Accepted; what can be fused is."""

    def enableWinograd(self, useWinograd: bool) -> None:
        """Accepted; the engine chooses its algorithms."""

    def getPerfProfile(self) -> tuple[int, npt.NDArray[np.float64]]:
        """The ticks of the last forward and those of each layer.

        A compiled run is one: all of it is ascribed to the last layer that ran, as OpenCV ascribes fused layers to one.
        `ticks / cv2.getTickFrequency()` are seconds.
        """
        node, nanoseconds = self._last_run
        ticks = np.zeros(len(self._entries) - 1)
        if nanoseconds:
            last = next(i for i, entry in enumerate(self._entries) if entry.node == node)
            ticks[last - 1] = int(nanoseconds * _ticks_per_nanosecond())
        return int(ticks.sum()), ticks

    # -- int8

    def quantize(self, calibData: Any, inputsDtype: int, outputsDtype: int, perChannel: bool = True) -> Net:
        """The same net in int8.

        Args:
            calibData: for each input an array of samples like those at inference, one after the other in the first
                axis; with one input the array itself, in a list or not.
            inputsDtype: `cv2.CV_32F`, or `cv2.CV_8S` for values scaled as `getInputDetails` says.
            outputsDtype: the same for outputs, with `getOutputDetails`.
            perChannel: accepted; weights always have a scale for each channel.

        Raises:
            InputError: the calibration data do not fit, or another type.
            NetError: a layer has no compiled form.
        """
        samples = self._calibration(calibData)
        calibration = [dict(zip(self._net.inputs, [part[None] for part in parts])) for parts in zip(*samples)]
        net = CaffeNet(self._source, TEST, precision="int8", calibration=calibration)
        net.share_with(self._net)
        quantized = Net(net, self._source)
        self._set_all(samples)
        names = self.getUnconnectedOutLayersNames()
        outputs = dict(zip(names, self.forward(names)))
        softmax = {name for name in names if self._entry(name).type == "Softmax"}
        quantized._quantization = measure(samples, outputs, softmax, inputsDtype, outputsDtype)
        return quantized

    def _calibration(self, given: Any) -> list[FloatArray]:
        arrays = [given] if isinstance(given, np.ndarray) else list(given)
        samples = [np.asarray(array, np.float32) for array in arrays]
        if len(samples) != len(self._inputs) or len({len(sample) for sample in samples}) != 1 or not len(samples[0]):
            raise InputError(
                "Calibration data size should be equal to number of inputs. "
                f"Expected {len(self._inputs)} arrays of as many samples each, got {[s.shape for s in samples]!r}."
            )
        return samples

    def _set_all(self, samples: Sequence[FloatArray]) -> None:
        for name, sample in zip(self._input_names, samples):
            self.setInput(sample, name)

    def getInputDetails(self) -> tuple[FloatArray, Ids]:
        """The scale and the zero point of each input of an int8 net."""
        return self._quantized().input_details()

    def getOutputDetails(self) -> tuple[FloatArray, Ids]:
        """The scale and the zero point of each output of an int8 net."""
        return self._quantized().output_details()

    def _quantized(self) -> Quantization:
        if self._quantization is None:
            raise NetError("Net isn't quantized. Call quantize first.")
        return self._quantization


class AsyncArray:
    """An answer that is on its way, with the methods of `cv2.AsyncArray`; times are in nanoseconds."""

    def __init__(self, future: Future[FloatArray]) -> None:
        self._future = future

    def get(self, timeoutNs: float | None = None) -> Any:
        """The array; with a time to wait `(True, array)`, or `(False, None)` if it is not there by then."""
        if timeoutNs is None:
            return self._future.result()
        return (True, self._future.result()) if self.wait_for(timeoutNs) else (False, None)

    def wait_for(self, timeoutNs: float) -> bool:
        """Whether it is there after that time at most."""
        try:
            self._future.exception(timeoutNs / 1e9)
        except FutureTimeout:
            return False
        return True

    def valid(self) -> bool:
        """True: this object always stands for an answer."""
        return True


def _as_blob(blob: Any) -> npt.NDArray[Any]:
    if hasattr(blob, "get") and not isinstance(blob, np.ndarray):  # cv2.UMat
        blob = blob.get()
    if not isinstance(blob, np.ndarray) or blob.dtype.kind not in "iuf":
        kind = f"an array of {blob.dtype}" if isinstance(blob, np.ndarray) else type(blob).__name__
        raise InputError(f"blob is not a numpy array of numbers. Got {kind}.")
    if not blob.size:
        raise InputError(f"inp.total() is 0: the blob has shape {blob.shape!r}.")
    return blob.reshape(-1, 1) if blob.ndim == 1 else blob


def _mean_for(mean: Any, shape: tuple[int, ...]) -> FloatArray:
    """The mean of each channel, shaped to be subtracted from a blob (N, C, ...)."""
    values = np.zeros(4, np.float32)
    given = np.atleast_1d(np.asarray(mean, np.float32))
    if len(shape) < 2 or shape[1] > 4 or given.ndim != 1 or given.size > 4:
        raise InputError(
            "A mean has up to four values, for blobs (N, C, ...) of up to four channels. "
            f"Got {mean!r} for shape {shape!r}."
        )
    values[: given.size] = given
    return values[: shape[1]].reshape(-1, *[1] * (len(shape) - 2))


def _ticks_per_nanosecond() -> float:
    """OpenCV's, where it is installed: its users divide by `cv2.getTickFrequency()`."""
    try:
        import cv2
    except ImportError:
        return 1.0
    return float(cv2.getTickFrequency()) / 1e9
