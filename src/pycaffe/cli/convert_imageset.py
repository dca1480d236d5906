"""`caffe convert_imageset`: image files to a database, with the arguments and log lines of the original's tool."""

from __future__ import annotations

from typing import Any

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr
from pycaffe.cli._storage_options import image_format, storage_options


@click.command("convert_imageset", cls=GflagsCommand)
@storage_options
def command(root_folder: str, list_file: str, path: str, **options: Any) -> None:
    """Make a database of the images in a list.

    LISTFILE has lines `path label`; ROOTFOLDER/ is put before each path. An image that cannot be read is logged and
    left out. DB_NAME must not exist yet; it appears when it is complete.
    """
    from pycaffe.data.convert_imageset import convert_imageset

    log_to_stderr()
    stored = image_format(options)
    convert_imageset(root_folder, list_file, path, stored, **options)
