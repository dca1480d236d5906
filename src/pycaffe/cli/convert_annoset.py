"""`caffe convert_annoset`: images and annotations to a database for SSD, as the fork's tool of that name."""

from __future__ import annotations

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr


@click.command("convert_annoset", cls=GflagsCommand)
@click.option("--anno_type", type=click.Choice(["classification", "detection"]), default="classification")
@click.option("--label_type", type=click.Choice(["xml", "json", "txt"]), default="xml", help="Of annotation files.")
@click.option("--label_map_file", default="", help="A LabelMap prototxt: the classes' names and labels; for detection.")
@click.option("--check_label", type=bool, default=False, metavar="[=BOOL]", help="A class named twice is an error.")
@click.option("--min_dim", type=int, default=0, help="Enlarge images whose shorter side is below.")
@click.option("--max_dim", type=int, default=0, help="Make images smaller whose longer side is above.")
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
    anno_type: str,
    label_type: str,
    label_map_file: str,
    check_label: bool,
    min_dim: int,
    max_dim: int,
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
    """Make a database of images with the objects in them.

    LISTFILE has lines `image label`, or with --anno_type=detection `image annotation`, two paths; ROOTFOLDER/ is put
    before each. Images that cannot be read are logged and left out. DB_NAME must not exist yet.
    """
    from pycaffe.data.convert_annoset import AnnotationFormat, convert_annoset
    from pycaffe.data.convert_imageset import ImageFormat

    log_to_stderr()
    stored = ImageFormat(
        max(0, resize_height), max(0, resize_width), gray, encoded, encode_type, max(0, min_dim), max(0, max_dim)
    )
    annotations = AnnotationFormat(anno_type, label_type, label_map_file, check_label)
    convert_annoset(
        root_folder, list_file, path, annotations, stored, backend=backend, shuffle=shuffle, check_size=check_size
    )
