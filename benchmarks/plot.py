"""Draws files/inference.json (bench_inference.py) for README: one group of bars a net, batch 1 and batch 8.

plot.py [OUT.png]      docs/inference.png without an argument
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
from typing import Any

from bars import THREADS
from bench_inference import Cases, read_results
from measure import NETS, ratio

TARGET = pathlib.Path(__file__).parent.parent / "docs" / "inference.png"
BATCHES = (1, 8)
ENGINES = {"pycaffe": "#c0392b", "onnxruntime": "#7f8c8d", "openvino": "#2e86c1", "opencv": "#d4ac0d"}
LABELS = {"onnxruntime": "raw onnxruntime", "openvino": "OpenVINO", "opencv": "OpenCV 4.14 dnn"}
TITLES = {
    "caffenet": "CaffeNet",
    "googlenet": "GoogLeNet",
    "squeezenet_v1_1": "SqueezeNet v1.1",
    "mobilenet_v1": "MobileNet v1",
    "resnet50": "ResNet-50",
    "vgg16": "VGG-16",
    "open_nsfw": "open_nsfw",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", type=pathlib.Path, default=TARGET)
    target = parser.parse_args().target
    draw(read_results(), target)
    print(target)


def draw(cases: Cases, target: pathlib.Path) -> None:
    """Images a second relative to OpenCV, with the spread over processes; a chart for each batch.

    Raises:
        SystemExit: nothing was measured with two threads.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batches = [b for b in BATCHES if any(case[1:] == (b, THREADS) for case in cases)]
    if not batches:
        raise SystemExit("No results with two threads: run bench_inference.py first.")
    figure, axes = pyplot.subplots(len(batches), 1, figsize=(10, 3.4 * len(batches)), squeeze=False)
    for batch, axis in zip(batches, axes[:, 0]):
        draw_batch(axis, batch, {case[0]: runs for case, runs in cases.items() if case[1:] == (batch, THREADS)})
    axes[0, 0].legend(ncols=len(ENGINES), loc="upper center", bbox_to_anchor=(0.5, 1.28), frameon=False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=120)
    pyplot.close(figure)


def draw_batch(axis: Any, batch: int, runs: dict[str, list[dict[str, Any]]]) -> None:
    """One chart."""
    nets = [net for net in NETS if net in runs]
    width = 0.8 / len(ENGINES)
    for number, (engine, color) in enumerate(ENGINES.items()):
        speeds = [[relative_speed(process, engine) for process in runs[net]] for net in nets]
        middle = [statistics.median(values) for values in speeds]
        errors = [
            [m - min(v) for m, v in zip(middle, speeds)],
            [max(v) - m for m, v in zip(middle, speeds)],
        ]
        places = [place + (number - (len(ENGINES) - 1) / 2) * width for place in range(len(nets))]
        bars = axis.bar(places, middle, width, yerr=errors, color=color, label=LABELS.get(engine, engine), capsize=2)
        axis.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axis.set_xticks(range(len(nets)), [TITLES[net] for net in nets])
    axis.set_ylabel(f"speed (OpenCV = 1)\nbatch {batch}, {THREADS} threads")
    axis.margins(y=0.12)
    axis.spines[["top", "right"]].set_visible(False)


def relative_speed(process: dict[str, Any], engine: str) -> float:
    """How many times as fast as OpenCV an engine is, in one process."""
    seconds = process["seconds"]
    return ratio(seconds["opencv"], seconds[engine])


if __name__ == "__main__":
    main()
