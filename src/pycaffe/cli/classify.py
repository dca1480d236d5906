"""`caffe classify`: images → the classes with the highest scores, in worker processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._identity import hash_of
from pycaffe.cli._image_options import ImageOptions, image_options
from pycaffe.cli._job import JobOptions, job_options, open_net, run_job
from pycaffe.cli._report import Caption

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pycaffe.cli._sinks.rows import Values
    from pycaffe.net import Net

FORMATS = ("jsonl", "csv", "parquet", "npz")


@click.command("classify")
@job_options(FORMATS)
@click.option("--labels", "labels_file", metavar="FILE", help="Names of the classes: one a line, or a label map.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, metavar="K", help="Classes an image.")
@image_options
def command(
    labels_file: str | None,
    top: int,
    mean: str | None,
    scale: float,
    resize: int | None,
    crop: int | None,
    **job: Any,
) -> int:
    """Score images in worker processes.

    PATHS are images, folders (with all below them), globs, and @list.txt with one path a line. A path that is named
    twice runs once.

    Without --resize and --crop, images are stretched to the size of the net's input; with --resize alone, the net's
    size is cropped from the centre. An image that cannot be read becomes a record with its error, and the job goes on.

    A job may end at any moment and go on with --resume, which takes the same model, weights and options: FILE.job says
    which. Parquet and NPZ appear when the job is complete; until then records are in FILE.partial. Scores are the same
    up to float32's rounding, which depends on how images fall into batches; with --batch-size 1, to the last digit.

    Ctrl-C and SIGTERM let the images finish that are at work; a second one stops at once.

    Exit status: 0 all images have scores, 1 some failed, 2 the command cannot be carried out, 130 interrupted,
    143 ended by SIGTERM.
    """
    options = JobOptions(**job)
    net = open_net(options)
    preprocess = ImageOptions(mean, scale, resize, crop).preprocess(net, "classify")
    scores = net.blobs[net.outputs[0]].shape
    if math.prod(scores[2:]) != 1:
        raise click.UsageError(f"classify needs scores of shape (N, classes). {net.outputs[0]!r} has {scores!r}.")
    labels = _read_labels(labels_file, net) if labels_file is not None else None
    table = Classes(net.outputs[0], min(top, scores[1]), labels)
    return run_job("classify", options, preprocess, table)


class Classes:
    """The table of this verb: `index`, `label` (if there are any) and `score` of the best `top` classes.

    In JSON: `"top": [{"index": 281, "label": "tabby", "score": 0.31}, …]`.
    """

    formats = FORMATS

    def __init__(self, output: str, top: int, labels: list[str] | None) -> None:
        from pycaffe.cli._sinks.rows import Column

        names = (Column("label", "str", (top,)),) if labels else ()
        self.columns = (Column("index", "int64", (top,)), *names, Column("score", "float32", (top,)))
        self.outputs = [output]
        self.settings: Mapping[str, Any] = {
            "top": top,
            "labels": hash_of("\n".join(labels).encode()) if labels else None,
        }
        self._top = top
        self._labels = labels

    def values(self, outputs: Mapping[str, npt.NDArray[np.float32]]) -> Values:
        """See `JobTable`."""
        import numpy as np

        scores = outputs[self.outputs[0]].ravel()
        best = np.argsort(-scores, kind="stable")[: self._top]
        values: dict[str, npt.NDArray[Any]] = {"index": best, "score": scores[best]}
        if self._labels:
            values["label"] = np.array([self._labels[index] for index in best], dtype=object)
        return values

    def json(self, values: Values) -> str:
        """See `Table`."""
        import json

        classes = []
        for place, index in enumerate(values["index"].tolist()):
            score = float(f"{values['score'][place]:.7g}")
            classes.append(
                {
                    "index": index,
                    **({"label": values["label"][place]} if self._labels else {}),
                    "score": score if math.isfinite(score) else None,  # JSON has no word for NaN and infinity
                }
            )
        return f'"top": {json.dumps(classes, allow_nan=False)}'

    def caption(self, values: Values) -> Caption:
        """See `JobTable`."""
        label = values["label"][0] if self._labels else f"class {values['index'][0]}"
        return Caption(label, float(values["score"][0]))


def _read_labels(name: str, net: Net) -> list[str]:
    """One label for each class.

    Raises:
        DataError: the file cannot be read.
        click.UsageError: a list has more or fewer: then they are another net's, or shifted.
    """
    from pycaffe.detection import read_class_names

    labels = read_class_names(name)
    classes = net.blobs[net.outputs[0]].count
    if isinstance(labels, dict):
        return [labels.get(index, f"class {index}") for index in range(classes)]
    if len(labels) != classes:
        raise click.UsageError(f"{name!r} has {len(labels)} labels, and {net.outputs[0]!r} has {classes} classes.")
    return labels
