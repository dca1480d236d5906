"""`caffe classify`: images → the classes with the highest scores, in worker processes.

paths ─→ Pool (decode, resize, crop, mean; forward) ─→ one JSON record an image, as they complete ─→ --out
└→ progress and a table on standard error
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._paths import expand
from pycaffe.cli._progress import Progress
from pycaffe.cli._records import Records, interrupts_postponed

if TYPE_CHECKING:
    from pycaffe.images import ImagePreprocess
    from pycaffe.net import Net
    from pycaffe.workers import Pool, Result

MEMORY_SECONDS = 2.0  # between two looks at the workers' memory


@click.command("classify")
@click.option("--model", required=True, metavar="PROTOTXT", help="The net, in its deploy form.")
@click.option("--weights", required=True, metavar="FILE", help="Its .caffemodel or .caffemodel.h5.")
@click.option("--labels", "labels_file", metavar="FILE", help="Names of the classes, one a line.")
@click.option(
    "--mean", metavar="V,V,V|FILE", help="Subtracted: values blue, green, red; or a .npy or .binaryproto file."
)
@click.option("--scale", type=float, default=1.0, show_default=True, help="Multiplies after the mean is subtracted.")
@click.option("--resize", type=click.IntRange(1), metavar="N", help="Stretch each image to N x N.")
@click.option("--crop", type=click.IntRange(1), metavar="N", help="Take the N x N pixels in the centre.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Worker processes.  [default: one a core]")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, metavar="K", help="Classes an image.")
@click.option("--out", default="-", metavar="FILE", help="JSON Lines, one record an image.  [default: standard output]")
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
def command(
    model: str,
    weights: str,
    labels_file: str | None,
    mean: str | None,
    scale: float,
    resize: int | None,
    crop: int | None,
    workers: int | None,
    top: int,
    out: str,
    paths: tuple[str, ...],
) -> int:
    """Score images in worker processes.

    PATHS are images, folders (with all below them), globs, and @list.txt with one path a line.

    Without --resize and --crop, images are stretched to the size of the net's input; with --resize alone, the net's
    size is cropped from the centre. An image that cannot be read becomes a record with its error, and the job goes on.

    Exit status: 0 all images have scores, 1 some failed, 2 the command cannot be carried out, 130 interrupted.
    """
    from pycaffe.net import TEST, Net
    from pycaffe.workers import Pool

    images = expand(paths)
    net = Net(model, TEST)  # here only to look at: what is wrong with it shows before any process starts
    preprocess = _preprocess(net, mean, scale, resize, crop)
    labels = _read_labels(labels_file, net) if labels_file is not None else None
    output = net.outputs[0]
    with (
        Records(out) as records,
        Pool(model, weights, workers=workers, preprocess=preprocess, outputs=[output]) as pool,
    ):
        return _run(pool, images, records, lambda result: _record(result, output, labels, top))


def _run(pool: Pool, images: list[str], records: Records, record: Any) -> int:
    """Writes a record for each result; returns the exit status."""
    progress = Progress(len(images))
    memory: list[int] = []
    looked = -math.inf
    status = 0
    try:
        for result in pool.imap_unordered(images):
            with interrupts_postponed():  # the record is whole, and the table counts it
                records.write(record(result))
                progress.advance(result.item, result.error)
            if progress.seconds - looked >= MEMORY_SECONDS or progress.done == len(images):
                looked = progress.seconds
                memory = max(memory, pool.worker_memory(), key=lambda bytes_: max(bytes_, default=0))
    except KeyboardInterrupt:
        status = 130
    progress.close()
    click.echo(_table(progress, memory), err=True)
    return status or int(progress.failed > 0)


def _table(progress: Progress, memory: list[int]) -> str:
    megabytes = f"{max(memory) / 1e6:.0f} MB of its own, {len(memory)} workers" if memory else "unknown"
    rows = [
        ("images", f"{progress.done}"),
        ("failures", f"{progress.failed}"),
        ("seconds", f"{progress.seconds:.1f}"),
        ("images/s", f"{progress.rate:.1f}"),
        ("a worker's memory", megabytes),
    ]
    return "\n".join(f"{name:<18} {value}" for name, value in rows)


def _record(result: Result, output: str, labels: list[str] | None, top: int) -> dict[str, Any]:
    import numpy as np

    if result.outputs is None:
        error = result.error
        return {"path": result.item, "error": f"{type(error).__name__}: {error}", "attempts": result.attempts}
    scores = result.outputs[output].ravel()
    classes = []
    for index in np.argsort(-scores, kind="stable")[:top].tolist():
        # JSON has no word for NaN and infinity.
        score = float(f"{scores[index]:.7g}") if np.isfinite(scores[index]) else None
        classes.append({"index": index, **({"label": labels[index]} if labels else {}), "score": score})
    return {"path": result.item, "top": classes, "seconds": round(result.seconds, 6), "worker": result.worker}


def _preprocess(net: Net, mean: str | None, scale: float, resize: int | None, crop: int | None) -> ImagePreprocess:
    """The preprocessing that the options ask for; `net` gets the input shape that follows.

    Raises:
        click.UsageError: the net or an option does not fit this verb.
        NetError: the net cannot take images of that size.
    """
    from pycaffe.images import ImagePreprocess

    shape = net.blobs[net.inputs[0]].shape if len(net.inputs) == 1 else ()
    if len(shape) != 4 or shape[1] not in (1, 3) or not net.outputs:
        inputs = {name: net.blobs[name].shape for name in net.inputs}
        raise click.UsageError(
            f"classify needs a net with one input of shape (N, 3 or 1, height, width). This one has "
            f"{inputs or 'none'}; give the deploy form of the net."
        )
    _, channels, height, width = shape
    stretch: int | tuple[int, int] | None = resize
    if resize is None and crop is None:
        stretch = (height, width)
    elif crop is None and (height, width) != (resize, resize):
        if height != width:
            raise click.UsageError(f"The net's input is {height} x {width}: give --crop, or leave out --resize.")
        crop = height
    if resize is not None and crop is not None and resize < crop:
        raise click.UsageError(f"Cannot crop {crop} x {crop} pixels from images of {resize} x {resize}.")
    extent = (crop, crop) if crop is not None else (height, width)
    net.blobs[net.inputs[0]].reshape(1, channels, *extent)
    net.reshape()
    scores = net.blobs[net.outputs[0]].shape
    if math.prod(scores[2:]) != 1:
        raise click.UsageError(f"classify needs scores of shape (N, classes). {net.outputs[0]!r} has {scores!r}.")
    return ImagePreprocess(mean=_mean(mean), scale=scale, resize=stretch, crop=crop, grey=channels == 1)


def _mean(text: str | None) -> str | tuple[float, ...] | None:
    """Values, else the name of a file."""
    if text is None:
        return None
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        return text


def _read_labels(name: str, net: Net) -> list[str]:
    """One label for each class.

    Raises:
        click.UsageError: the file cannot be read, or has more or fewer: then they are another net's, or shifted.
    """
    try:
        with open(name, encoding="utf-8") as file:
            labels = file.read().rstrip().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"Could not read the labels {name!r}: {error}.") from error
    classes = net.blobs[net.outputs[0]].count
    if len(labels) != classes:
        raise click.UsageError(f"{name!r} has {len(labels)} labels, and {net.outputs[0]!r} has {classes} classes.")
    return [label.strip() for label in labels]
