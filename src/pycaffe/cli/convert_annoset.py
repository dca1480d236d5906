"""`caffe convert_annoset`: images and annotations to a database for SSD, as the fork's tool of that name."""

from __future__ import annotations

from typing import Any

import click

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr
from pycaffe.cli._storage_options import image_format, storage_options


@click.command("convert_annoset", cls=GflagsCommand)
@click.option("--anno_type", type=click.Choice(["classification", "detection"]), default="classification")
@click.option("--label_type", type=click.Choice(["xml", "json", "txt"]), default="xml", help="Of annotation files.")
@click.option("--label_map_file", default="", help="A LabelMap prototxt: the classes' names and labels; for detection.")
@click.option("--check_label", type=bool, default=False, metavar="[=BOOL]", help="A class named twice is an error.")
@click.option("--min_dim", type=int, default=0, help="Enlarge images whose shorter side is below.")
@click.option("--max_dim", type=int, default=0, help="Make images smaller whose longer side is above.")
@storage_options
def command(
    anno_type: str,
    label_type: str,
    label_map_file: str,
    check_label: bool,
    root_folder: str,
    list_file: str,
    path: str,
    **options: Any,
) -> None:
    """Make a database of images with the objects in them.

    LISTFILE has lines `image label`, or with --anno_type=detection `image annotation`, two paths; ROOTFOLDER/ is put
    before each. Images that cannot be read are logged and left out. DB_NAME must not exist yet.
    """
    from pycaffe.data.convert_annoset import AnnotationFormat, convert_annoset

    log_to_stderr()
    annotations = AnnotationFormat(anno_type, label_type, label_map_file, check_label)
    stored = image_format(options)
    convert_annoset(root_folder, list_file, path, annotations, stored, **options)
