"""`caffe time`: the original's table of milliseconds by layer, and how long the whole takes compiled.

The table's lines are those of tools/caffe.cpp in glog form on stderr, where parsers expect them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import click

from pycaffe.cli._caffe_cpp import first_device, info, stages_of
from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

if TYPE_CHECKING:
    from pycaffe.net import Net

COMPILED = "Average compiled Forward pass (TEST): {}"
SPINNING = 0.05  # seconds after which threads without work have gone to sleep
logger = logging.getLogger("pycaffe.cli.time")


@click.command("time", cls=GflagsCommand)
@click.option("--model", required=True, metavar="PROTOTXT", help="The net.")
@click.option("--weights", metavar="CAFFEMODEL", help="Weights to copy; the fillers' values without.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True)
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TRAIN", show_default=True)
@click.option("--level", type=int, default=0, help="The level of the net's state.")
@click.option("--stage", default="", help="The stages of the net's state, separated by commas.")
@click.option(
    "--engine",
    type=click.Choice(["torch", "onnxruntime", "openvino"]),
    help="torch: the table alone. onnxruntime, openvino: each layer compiled by itself, forward only, in the TEST "
    "phase. Without it: the table by torch, then the whole TEST-phase forward compiled.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="bfloat16: on openvino.",
)
@click.option("--gpu", default="", metavar="N", help="Run on this GPU; of several, on the first.")
def command(
    model: str,
    weights: str | None,
    iterations: int,
    phase: str,
    level: int,
    stage: str,
    engine: str | None,
    precision: str,
    gpu: str,
) -> None:
    """Time a net, layer by layer.

    The inputs of a net without data layers are zeros. Layers that no loss needs have no backward to time, unless the
    prototxt says `force_backward: true`. Everything is logged to stderr.
    """
    from pycaffe.net import TEST, TRAIN, Net

    log_to_stderr()
    device = first_device(gpu)
    if device == "cpu":
        info(343, "Use CPU.")
    else:
        info(339, f"Use GPU with device ID {device.partition(':')[2]}")
    if precision != "float32" and engine is None:
        engine = "openvino"

    def build(number: int, engine: str) -> Net:
        return Net(model, number, level, stages_of(stage), weights, engine=engine, device=device, precision=precision)

    if engine in ("onnxruntime", "openvino"):
        _time_compiled_layers(build(TEST, engine), iterations)
        return
    _time_layers(build(TRAIN if phase == "TRAIN" else TEST, "torch"), iterations)
    if engine is None:
        _time_compiled(lambda: build(TEST, "onnxruntime"), iterations)


def _time_layers(net: Net, iterations: int) -> None:
    """The original's benchmark: forward and backward, each layer by itself."""
    names = list(net._layer_names)
    info(351, "Performing Forward")
    info(356, f"Initial loss: {net._forward(0, len(names) - 1):g}")
    info(357, "Performing Backward")
    net._backward(len(names) - 1, 0)
    info(365, "*** Benchmark begins ***")
    info(366, f"Testing for {iterations} iterations.")
    forward, backward = [0.0] * len(names), [0.0] * len(names)
    forward_total = backward_total = total = 0.0
    for iteration in range(iterations):
        once_forward = _milliseconds(lambda: _add_each(forward, net._forward))
        once_backward = _milliseconds(lambda: _add_each(backward, net._backward, from_last=True))
        forward_total += once_forward
        backward_total += once_backward
        total += once_forward + once_backward
        info(394, f"Iteration: {iteration + 1} forward-backward time: {once_forward + once_backward:g} ms.")
    info(397, "Average time per layer: ")
    for index, name in enumerate(names):
        info(400, f"{name:>10}\tforward: {forward[index] / iterations:g} ms.")
        info(403, f"{name:>10}\tbackward: {backward[index] / iterations:g} ms.")
    info(408, f"Average Forward pass: {forward_total / iterations:g} ms.")
    info(410, f"Average Backward pass: {backward_total / iterations:g} ms.")
    info(412, f"Average Forward-Backward: {total / iterations:g} ms.")
    info(414, f"Total Time: {total:g} ms.")
    info(415, "*** Benchmark ends ***")


def _time_compiled_layers(net: Net, iterations: int) -> None:
    """Forward of each layer compiled by itself, and of the whole, which fuses layers and so is faster than their sum.

    A layer's iterations follow each other, because the cache of compiled ranges is smaller than many nets. Each range
    has threads of its own, which spin for a while after a run: the whole goes first, and a layer waits for the last.
    """
    names = list(net._layer_names)
    info(351, "Performing Forward")
    info(356, f"Initial loss: {net._forward(0, len(names) - 1):g}")
    info(365, "*** Benchmark begins ***")
    info(366, f"Testing for {iterations} iterations.")
    whole = _average(lambda: net._forward(0, len(names) - 1), iterations)
    info(397, "Average time per layer: ")
    for index, name in enumerate(names):
        time.sleep(SPINNING)
        info(400, f"{name:>10}\tforward: {_average(partial(net._forward, index, index), iterations):g} ms.")
    logger.info(COMPILED.format(f"{whole:g} ms."))
    info(415, "*** Benchmark ends ***")


def _time_compiled(build: Callable[[], Net], iterations: int) -> None:
    """The whole TEST-phase forward compiled, where this net has one."""
    from pycaffe.errors import CaffeError

    try:
        net = build()
        average = _average(lambda: net._forward(0, len(net._layer_names) - 1), iterations)
    except (CaffeError, OSError) as error:
        logger.info(COMPILED.format(f"not measured. {error}"))
    else:
        logger.info(COMPILED.format(f"{average:g} ms."))


def _add_each(times: list[float], run: Callable[[int, int], object], from_last: bool = False) -> None:
    """Runs every layer by itself and adds its milliseconds to `times`."""
    for index in reversed(range(len(times))) if from_last else range(len(times)):
        times[index] += _milliseconds(partial(run, index, index))


def _average(run: Callable[[], object], iterations: int) -> float:
    """Milliseconds of a run, on the average, after one that may compile."""
    run()
    return sum(_milliseconds(run) for _ in range(iterations)) / iterations


def _milliseconds(run: Callable[[], object]) -> float:
    from pycaffe.timer import Timer

    timer = Timer()
    timer.start()
    run()
    return timer.ms
