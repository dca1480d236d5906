"""Which engine runs a net in which precision: reduced precision is always asked for by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pycaffe.blob import FloatArray
from pycaffe.engines.openvino_session import OpenVinoSession, check_openvino
from pycaffe.engines.quantized import create_quantized_session
from pycaffe.engines.segment import LoweredSegment, Segment, SegmentNotLowerable
from pycaffe.errors import InputError, NetError, did_you_mean
from pycaffe.graph import Graph, Node
from pycaffe.layers import HostLayer
from pycaffe.net.calibration import Calibration

__all__ = ["ENGINES", "PRECISIONS", "check_lowers", "choose_engine", "session_maker"]

ENGINES = ("torch", "onnxruntime", "openvino")
PRECISIONS = {"float32": (None, *ENGINES), "bfloat16": ("openvino",), "int8": ("onnxruntime",)}
CreateSession = Callable[[Segment, list[FloatArray], int], Any]


def choose_engine(engine: str | None, precision: str, calibrated: bool, device: str | None, phase: int) -> str | None:
    """The engine that a net will use; None chooses by layer.

    Args:
        engine: what the user asked for, or None.
        precision: "float32", "bfloat16" (openvino) or "int8" (onnxruntime).
        calibrated: whether calibration inputs were given.
        device: what the user asked for, or None.
        phase: 0 TRAIN or 1 TEST.

    Raises:
        NetError: unknown engine, or reduced precision in the TRAIN phase.
        InputError: unknown precision, or things that do not go together; says what does.
        MissingExtra: openvino is not installed.
    """
    if engine is not None and engine not in ENGINES:
        raise NetError(
            f"Unknown engine {engine!r}. Expected one of {ENGINES!r} or None.{did_you_mean(engine, ENGINES)}"
        )
    if precision not in PRECISIONS:
        raise InputError(
            f"Unknown precision {precision!r}. Expected one of {tuple(PRECISIONS)!r}."
            f"{did_you_mean(str(precision), PRECISIONS)}"
        )
    possible = PRECISIONS[precision]
    chosen = possible[0] if engine is None else engine
    if chosen not in possible:
        raise InputError(f"precision={precision!r} runs on engine={possible[0]!r} alone. Got engine={engine!r}.")
    if precision != "float32" and phase != 1:
        raise NetError(f"precision={precision!r} is for nets in the TEST phase: training is in float32.")
    if precision == "int8" and not calibrated:
        raise InputError(
            "precision='int8' needs calibration=inputs: an iterable of some 20 to 200 inputs that are like those at "
            "inference, each an array (C, H, W) or (N, C, H, W) as the net takes it, or a dict of arrays by input name."
        )
    if calibrated and precision != "int8":
        raise InputError(f"calibration belongs to precision='int8'. Got precision={precision!r}.")
    if device not in (None, "cpu") and (chosen == "openvino" or precision != "float32"):
        raise InputError(f"engine={chosen!r} with precision={precision!r} runs on the CPU. Got device={device!r}.")
    if chosen == "openvino":
        check_openvino()
    return chosen


def check_lowers(graph: Graph) -> None:
    """Checks that a net can be quantised: all of it is one compiled segment behind its inputs.

    Raises:
        NetError: names the first layer that runs on the host or has no ONNX form.
    """
    for node in graph.nodes:
        if isinstance(node.layer, HostLayer) and node.type != "Input":
            raise _not_whole(node, "it runs on the host")
    try:
        LoweredSegment(graph, 0, len(graph.nodes) - 1)
    except SegmentNotLowerable as error:
        raise _not_whole(graph.nodes[error.index], error.reason) from error


def _not_whole(node: Node, reason: str) -> NetError:
    return NetError(
        f"precision='int8' needs a net of Input layers and layers with an ONNX form. Layer {node.name!r} ({node.type}) "
        f"has none: {reason}. In {node.where}."
    )


def session_maker(engine: str | None, precision: str, calibration: Calibration | None) -> CreateSession | None:
    """What makes a session of a segment, its parameters' values and threads; None for onnxruntime's ordinary ones."""
    if engine == "openvino":
        return lambda segment, values, threads: OpenVinoSession(segment, values, threads, precision)
    if calibration is not None:
        return lambda segment, values, threads: create_quantized_session(
            segment, values, calibration.samples(segment), threads
        )
    return None
