"""`caffe convert_imageset`: image files to a database, with the arguments and log lines of the original's tool."""

from __future__ import annotations

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr


@click.command("convert_imageset", cls=GflagsCommand)
@click.option("--gray", type=bool, default=False, metavar="[=BOOL]", help="Read the images as grey ones.")
@click.option("--shuffle", type=bool, default=False, metavar="[=BOOL]", help="Store them in random order.")
@click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), default="lmdb", show_default=True)
@click.option("--resize_width", type=int, default=0, help="Width that images are resized to; with --resize_height.")
@click.option("--resize_height", type=int, default=0, help="Height that images are resized to.")
@click.option("--check_size", type=bool, default=False, metavar="[=BOOL]", help="Images of two sizes are an error.")
@click.option("--encoded", type=bool, default=False, metavar="[=BOOL]", help="Store image files, not pixels.")
@click.option("--encode_type", default="", help="The format to store, such as png or jpg; the file's own without it.")
@click.argument("root_folder", metavar="ROOTFOLDER/")
@click.argument("list_file", metavar="LISTFILE")
@click.argument("path", metavar="DB_NAME")
def command(
    gray: bool,
    shuffle: bool,
    backend: str,
    resize_width: int,
    resize_height: int,
    check_size: bool,
    encoded: bool,
    encode_type: str,
    root_folder: str,
    list_file: str,
    path: str,
) -> None:
    """Make a database of the images in a list.

    LISTFILE has lines `path label`; ROOTFOLDER/ is put before each path. An image that cannot be read is logged and
    left out. DB_NAME must not exist yet; it appears when it is complete.
    """
    from pycaffe.data.convert_imageset import ImageFormat, convert_imageset

    log_to_stderr()
    stored = ImageFormat(max(0, resize_height), max(0, resize_width), gray, encoded, encode_type)
    convert_imageset(root_folder, list_file, path, stored, backend=backend, shuffle=shuffle, check_size=check_size)
