"""`caffe extract_features`: blobs of a net as databases, with the arguments and log lines of the original's tool."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

if TYPE_CHECKING:
    from pycaffe.data import DatabaseWriter
    from pycaffe.net import Net

PROGRESS = 1000  # records between two log lines
logger = logging.getLogger(__name__)


@click.command("extract_features", cls=GflagsCommand)
@click.argument("weights", metavar="PRETRAINED_NET_PARAM")
@click.argument("model", metavar="FEATURE_EXTRACTION_PROTO_FILE")
@click.argument("blob_names", metavar="BLOB1[,BLOB2...]")
@click.argument("dataset_names", metavar="DATASET1[,DATASET2...]")
@click.argument("num_mini_batches", type=click.IntRange(1))
@click.argument("db_type", type=click.Choice(["lmdb", "leveldb"]))
@click.argument("mode", type=click.Choice(["CPU", "GPU"]), default="CPU")
@click.argument("device_id", metavar="[DEVICE_ID=0]", default="0")
def command(
    weights: str,
    model: str,
    blob_names: str,
    dataset_names: str,
    num_mini_batches: int,
    db_type: str,
    mode: str,
    device_id: str,
) -> None:
    """Run a net over its data layer and store blobs as databases of float Datums.

    The net runs in the TEST phase. Each dataset must not exist yet; all appear when they are complete.
    """
    from pycaffe.data import DatabaseWriter
    from pycaffe.net import TEST, Net

    log_to_stderr()
    blobs, datasets = blob_names.split(","), dataset_names.split(",")
    if len(blobs) != len(datasets):
        raise click.UsageError(
            f"The number of blob names and dataset names must be equal. Got {len(blobs)} and {len(datasets)}."
        )
    net = Net(model, TEST, weights=weights, device=_device(mode, device_id))
    for name in blobs:
        if name not in net.blobs:
            raise click.UsageError(f"Unknown feature blob name {name} in the network {model}")
    with ExitStack() as writers:
        outputs: dict[str, DatabaseWriter] = {}
        for blob, dataset in zip(blobs, datasets):
            logger.info(f"Opening dataset {dataset}", extra={"place": "extract_features.cpp:125"})
            outputs[blob] = writers.enter_context(DatabaseWriter(dataset, db_type))
        _log("Extracting Features", 133)
        for _ in range(num_mini_batches):
            net.forward(blobs=blobs)
            _store(net, outputs)
    for blob, writer in outputs.items():
        _log(f"Extracted features of {writer.count} query images for feature blob {blob}", 176)
    _log("Successfully extracted the features!", 181)


def _device(mode: str, device_id: str) -> str:
    if mode == "CPU":
        _log("Using CPU", 62)
        return "cpu"
    number = device_id.removeprefix("DEVICE_ID=")
    if not number.isdigit():
        raise click.UsageError(f"{device_id!r} is not the number of a GPU.")
    _log("Using GPU", 52)
    _log(f"Using Device_id={int(number)}", 58)
    return f"cuda:{int(number)}"


def _store(net: Net, outputs: dict[str, DatabaseWriter]) -> None:
    """Writes a batch of each blob, one Datum a row; its axes are the legacy ones, 1 where the blob has fewer."""
    from pycaffe.proto import schema

    for name, writer in outputs.items():
        blob = net.blobs[name]
        shape = {"channels": blob.channels, "height": blob.height, "width": blob.width}
        for row in blob.data.reshape(blob.num, -1).tolist():
            writer.put(b"%010d" % writer.count, schema.Datum(float_data=row, **shape))
            if writer.count % PROGRESS == 0:
                _log(f"Extracted features of {writer.count} query images for feature blob {name}", 165)


def _log(message: str, line: int) -> None:
    """At the level of errors, as the original: they are to be seen whatever the level of the log is."""
    logger.error(message, extra={"place": f"extract_features.cpp:{line}"})
