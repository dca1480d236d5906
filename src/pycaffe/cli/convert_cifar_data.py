"""`caffe convert_cifar_data`: CIFAR-10's files to two databases, with the arguments of the original's tool."""

from __future__ import annotations

import logging
import os

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

TRAIN_FILES = 5
logger = logging.getLogger(__name__)


@click.command("convert_cifar_data", cls=GflagsCommand)
@click.argument("input_folder")
@click.argument("output_folder")
@click.argument("db_type", type=click.Choice(["lmdb", "leveldb"]))
def command(input_folder: str, output_folder: str, db_type: str) -> None:
    """Make databases of CIFAR-10's binary batch files.

    INPUT_FOLDER has data_batch_1.bin to data_batch_5.bin and test_batch.bin. In OUTPUT_FOLDER appear
    cifar10_train_DB_TYPE and cifar10_test_DB_TYPE.
    """
    log_to_stderr()
    _log("Writing Training data", 52)
    train = [f"data_batch_{number}.bin" for number in range(1, TRAIN_FILES + 1)]
    _write(input_folder, train, os.path.join(output_folder, f"cifar10_train_{db_type}"), db_type)
    _log("Writing Testing data", 73)
    _write(input_folder, ["test_batch.bin"], os.path.join(output_folder, f"cifar10_test_{db_type}"), db_type)


def _write(folder: str, names: list[str], path: str, db_type: str) -> None:
    """The records of several files; keys count on through them, with five digits."""
    from pycaffe.data import DatabaseWriter
    from pycaffe.data.labelled_images import read_cifar10
    from pycaffe.proto import schema

    with DatabaseWriter(path, db_type) as writer:
        for number, name in enumerate(names, 1):
            if len(names) > 1:
                _log(f"Training Batch {number}", 55)
            for image, label in zip(*read_cifar10(os.path.join(folder, name))):
                channels, height, width = image.shape
                datum = schema.Datum(
                    channels=channels, height=height, width=width, data=image.tobytes(), label=int(label)
                )
                writer.put(b"%05d" % writer.count, datum)


def _log(message: str, line: int) -> None:
    logger.info(message, extra={"place": f"convert_cifar_data.cpp:{line}"})
