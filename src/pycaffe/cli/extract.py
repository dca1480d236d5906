"""`caffe extract`: images → the values of any blobs (features), in worker processes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._image_options import ImageOptions, image_options
from pycaffe.cli._job import JobOptions, job_options, open_net, run_job

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pycaffe.cli._report import Caption
    from pycaffe.cli._sinks.rows import Values
    from pycaffe.net import Net

FORMATS = ("jsonl", "csv", "parquet", "npz")
TAKEN = ("path", "error", "failed")  # names of columns


@click.command("extract")
@job_options(FORMATS)
@click.option("--blobs", required=True, metavar="NAME,NAME", help="The blobs whose values are written.")
@image_options
def command(
    blobs: str,
    mean: str | None,
    scale: float,
    resize: int | None,
    crop: int | None,
    **job: Any,
) -> int:
    """Write features of images: the values of blobs.

    --out feats.npz has an array (N, ...) for each blob and the paths beside it; Parquet a list column for each blob;
    CSV a field for each value; JSON Lines nested lists. A value reads back as the same float32.

    PATHS, --resume, the other options and the exit status are those of `caffe classify`.
    """
    options = JobOptions(**job)
    net = open_net(options)
    preprocess = ImageOptions(mean, scale, resize, crop).preprocess(net, "extract")
    return run_job("extract", options, preprocess, Features(_shapes(net, blobs)))


class Features:
    """The table of this verb: a column for each blob. In JSON: `"blobs": {"fc7": [0, 1.25, …]}`."""

    formats = FORMATS

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        from pycaffe.cli._sinks.rows import Column

        self.columns = tuple(Column(name, "float32", shape) for name, shape in shapes.items())
        self.outputs = list(shapes)
        self.settings: Mapping[str, Any] = {"blobs": self.outputs}

    def values(self, outputs: Mapping[str, npt.NDArray[np.float32]]) -> Values:
        """See `JobTable`."""
        return outputs

    def json(self, values: Values) -> str:
        """See `Table`."""
        from pycaffe.cli._sinks.numbers import json_numbers

        blobs = (f"{json.dumps(name)}: {json_numbers(values[name])}" for name in self.outputs)
        return f'"blobs": {{{", ".join(blobs)}}}'

    def caption(self, values: Values) -> Caption | None:
        """Features say nothing to a reader."""
        return None


def _shapes(net: Net, blobs: str) -> dict[str, tuple[int, ...]]:
    """For each blob that is asked for, the shape that one image has of it.

    Raises:
        click.UsageError: the net has no such blob, or its name is taken.
    """
    from pycaffe.errors import did_you_mean

    shapes: dict[str, tuple[int, ...]] = {}
    for name in blobs.split(","):
        if name not in net.blobs:
            known = ", ".join(map(repr, net.blobs))
            raise click.UsageError(f"Unknown blob name {name!r}.{did_you_mean(name, net.blobs)} The net has {known}.")
        if name in TAKEN:
            raise click.UsageError(f"A blob with the name {name!r} cannot be written: records have that themselves.")
        shape = net.blobs[name].shape
        shapes[name] = shape[1:] if shape and shape[0] == 1 else shape
    return shapes
