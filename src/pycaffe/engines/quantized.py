"""Sessions in int8: a segment quantised by onnxruntime's static quantisation.

The life of one session: the segment's model, with its weights inside, is optimised by onnxruntime (batch normalisation
goes into the convolutions, which must happen before weights are rounded) → run in float32 over the calibration inputs,
noting each value's range → written with QuantizeLinear and DequantizeLinear around convolutions, products, sums and
poolings; weights get a scale for each output channel → loaded, where onnxruntime puts integer kernels in their place.
All in a temporary folder that is gone afterwards.
"""

from __future__ import annotations

import logging
import pathlib
import platform
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from pycaffe.blob import FloatArray
from pycaffe.engines.runtime import load_onnxruntime
from pycaffe.engines.segment import Segment
from pycaffe.errors import InputError

__all__ = ["create_quantized_session"]

QUANTIZED = ["Conv", "Gemm", "MatMul", "Add", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool", "Relu", "Clip"]
QUANTIZED += ["Reshape", "Flatten", "Transpose"]  # which pass integers on
LARGE = 1 << 30  # bytes; a protobuf message ends at 2 GB, and calibration adds to the model
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def create_quantized_session(
    segment: Segment,
    values: list[FloatArray],
    samples: Iterable[dict[str, FloatArray]],
    threads: int,
) -> Any:
    """An onnxruntime session that computes a segment in int8 (activations uint8, weights int8 by output channel).

    Args:
        segment: the model.
        values: the parameters' values; they are copied into the quantised model.
        samples: inputs by name, as they will be at inference: their ranges become the scales.
        threads: threads inside one run.

    Raises:
        InputError: no samples, or one of them is not finite.
    """
    import onnx

    onnxruntime = load_onnxruntime()
    from onnxruntime import quantization

    reader = _Reader(samples)
    with tempfile.TemporaryDirectory(prefix="pycaffe-int8-", ignore_cleanup_errors=True) as name:
        folder = pathlib.Path(name)
        _write_optimized(segment, values, folder / "float.onnx")
        with _quiet():
            quantization.quantize_static(
                str(folder / "float.onnx"),
                str(folder / "int8.onnx"),
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=QUANTIZED,
                per_channel=True,
                reduce_range=not _multiplies_uint8_exactly(),
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=_unsuited(onnx.load(str(folder / "float.onnx"), load_external_data=False)),
                use_external_data_format=_is_large(values),
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = threads
        return onnxruntime.InferenceSession(str(folder / "int8.onnx"), options, providers=["CPUExecutionProvider"])


class _Reader:
    """onnxruntime's CalibrationDataReader: the next input, None after the last."""

    def __init__(self, samples: Iterable[dict[str, FloatArray]]) -> None:
        self._samples = _checked(samples)

    def get_next(self) -> dict[str, FloatArray] | None:
        return next(self._samples, None)


def _checked(samples: Iterable[dict[str, FloatArray]]) -> Iterator[dict[str, FloatArray]]:
    import numpy as np

    count = 0
    for count, sample in enumerate(samples, 1):
        for name, array in sample.items():
            if not np.isfinite(array).all():
                raise InputError(f"Calibration input {count - 1} has a value in {name!r} that is not finite.")
        yield sample
    if not count:
        raise InputError("calibration is empty. Pass some inputs that are like those at inference: 20 to 200 do.")


def _write_optimized(segment: Segment, values: list[FloatArray], path: pathlib.Path) -> None:
    """Writes the segment's model with its weights, as onnxruntime's basic optimisations leave it."""
    import onnx

    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(path)
    if _is_large(values):
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    if segment.parameters:
        options.add_external_initializers(
            [name for name, _, _ in segment.parameters],
            [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in values],
        )
    onnxruntime.InferenceSession(segment.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    model = onnx.load(str(path), load_external_data=False)
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")  # it is optimised: no warning
    path.write_bytes(model.SerializeToString())


def _is_large(values: list[FloatArray]) -> bool:
    """Whether the weights do not fit in one protobuf message."""
    return sum(array.nbytes for array in values) > LARGE


def _unsuited(model: Any) -> list[str]:
    """Nodes that stay in float32: the sums of squares of LRN, whose range is far too wide for 256 steps."""
    squares = {node.output[0] for node in model.graph.node if node.op_type == "Mul" and len(set(node.input)) == 1}
    return [node.name for node in model.graph.node if node.op_type in WEIGHTED and node.input[0] in squares]


def _multiplies_uint8_exactly() -> bool:
    """Whether sums of uint8 × int8 products do not saturate at 16 bits: x86 needs VNNI for that, others have it.

    Without it, and where it cannot be known, weights are rounded to 7 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return True
    try:
        return "_vnni" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


class _quiet:
    """Keeps what onnxruntime.quantization tells the root logger while it works from stderr."""

    def __enter__(self) -> None:
        logging.getLogger().addFilter(_drop)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeFilter(_drop)


def _drop(record: logging.LogRecord) -> bool:
    return "onnxruntime" not in record.pathname
