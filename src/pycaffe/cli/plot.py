"""`caffe plot`: the curves of one or more training logs in one picture."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pycaffe.cli._training_log import Measurement, TrainingLog

MARKED_POINTS = 30  # up to so many, a curve shows its points
PANEL_INCHES = (7.0, 3.2)
COLOURS = 10  # of matplotlib, "C0" to "C9"; after them the next line style begins
LINE_STYLES = ("-", "--", ":", "-.")
# Names that nets give to what is better the larger: accuracy_top5, acc/top1, loss3/top-5, SSD's detection_eval, mAP.
ACCURACY = re.compile(r"(.*[^a-z])?((acc|top[-_]?\d)(?![a-z])|(m?ap|m?iou)$)|.*accuracy|detection_eval", re.IGNORECASE)


@click.command("plot")
@click.argument("logs", nargs=-1, required=True, metavar="RUN.log...")
@click.option("-o", "--out", metavar="FILE", help="The picture: .png, .svg or .pdf; by default RUN.png.")
@click.option("--x", type=click.Choice(["iterations", "seconds"]), default="iterations", show_default=True)
def command(logs: tuple[str, ...], out: str | None, x: str) -> None:
    """Plot the curves of training logs: losses, other outputs such as accuracy, learning rate, iterations a second.

    A log is what `caffe train` wrote to stderr, the original's or this one. Several runs are drawn in one picture.
    """
    from pycaffe.cli._training_log import read_training_log

    out = out or f"{os.path.splitext(logs[0])[0]}.png"
    if os.path.splitext(out)[1].lower() not in (".png", ".svg", ".pdf"):
        raise click.UsageError(f"Cannot draw to {out!r}. Give a name that ends in .png, .svg or .pdf.")
    runs = [read_training_log(log) for log in logs]
    figure = _draw(runs, _labels(logs), x)
    _save(figure, out)
    click.echo(f"Wrote {out}: {len(runs)} run(s), {sum(len(run.series) for run in runs)} curve(s).")


def _labels(paths: tuple[str, ...]) -> list[str]:
    """Short names of the runs: of the files where those differ, else with as much of the folders as is needed."""
    stems = [os.path.splitext(os.path.basename(path))[0] for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    folders = [os.path.dirname(os.path.abspath(path)) for path in paths]
    shared = os.path.commonpath(folders)
    return [os.path.relpath(os.path.abspath(path), shared) for path in paths]


def _panel(measurement: Measurement) -> str:
    """The panel that a series belongs to; its title."""
    if measurement.series == "lr":
        return "learning rate"
    if measurement.series == "iterations/s":
        return "iterations a second"
    name = measurement.series.rpartition("/")[2]  # GoogLeNet's loss1/top-5 is none of its losses
    if measurement.is_loss or "loss" in name:
        return "loss"
    return "accuracy" if ACCURACY.match(name) else "other outputs"


def _names(run: TrainingLog) -> dict[str, str]:
    """Each series of a run → what the legend calls it. Of several test nets each has its number, as in the log."""
    several = any(re.match(r"test \d+/", series) for series in run.series)
    first = "test net #0/" if several else "test/"
    return {
        series: re.sub(r"^test (\d+)/", r"test net #\1/", re.sub(r"^test/", first, series)) for series in run.series
    }


PANELS = ("loss", "accuracy", "other outputs", "learning rate", "iterations a second")


def _draw(runs: list[TrainingLog], labels: list[str], x: str) -> Any:
    """A matplotlib figure with a panel for each kind of series that there is."""
    from pycaffe.errors import MissingExtra

    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra.of("matplotlib", "plot", "Drawing curves") from error
    curves: dict[str, list[tuple[str, list[Measurement]]]] = {}
    for run, label in zip(runs, labels):
        names = _names(run)
        for series, points in run.series.items():
            name = f"{label}: {names[series]}" if len(runs) > 1 else names[series]
            values = list(points.values())
            curves.setdefault(_panel(values[0]), []).append((name, values))
    panels = [panel for panel in PANELS if panel in curves]
    width, height = PANEL_INCHES
    figure = Figure(figsize=(width, height * len(panels)), layout="constrained")
    for axes, panel in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels):
        for number, (name, values) in enumerate(curves[panel]):
            at = [point.iteration if x == "iterations" else point.seconds for point in values]
            marker = "." if len(values) <= MARKED_POINTS else ""
            style = LINE_STYLES[number // COLOURS % len(LINE_STYLES)]
            heights = [point.value for point in values]
            axes.plot(at, heights, f"C{number % COLOURS}", linestyle=style, marker=marker, linewidth=1, label=name)
        axes.set(title=panel, xlabel=x)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def _save(figure: Any, out: str) -> None:
    """Writes the picture as a whole or not at all."""
    from pycaffe.proto.replace_file import replacing

    with replacing(out) as temporary:
        figure.savefig(temporary, format=os.path.splitext(out)[1][1:].lower(), dpi=150)
