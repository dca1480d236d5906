"""`caffe convert_mnist_data`: MNIST's files to a database, with the arguments and log lines of the original's tool."""

from __future__ import annotations

import logging

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

logger = logging.getLogger(__name__)


@click.command("convert_mnist_data", cls=GflagsCommand)
@click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), default="lmdb", show_default=True)
@click.argument("image_file", metavar="INPUT_IMAGE_FILE")
@click.argument("label_file", metavar="INPUT_LABEL_FILE")
@click.argument("path", metavar="OUTPUT_DB_FILE")
def command(backend: str, image_file: str, label_file: str, path: str) -> None:
    """Make a database of MNIST's two files, which must be unpacked."""
    from pycaffe.data import write_database
    from pycaffe.data.labelled_images import read_mnist

    log_to_stderr()
    images, labels = read_mnist(image_file, label_file)
    _log(f"A total of {len(images)} items.", 88)
    _log(f"Rows: {images.shape[2]} Cols: {images.shape[3]}", 89)
    _log(f"Processed {write_database(path, images, labels.tolist(), backend)} files.", 108)


def _log(message: str, line: int) -> None:
    logger.info(message, extra={"place": f"convert_mnist_data.cpp:{line}"})
