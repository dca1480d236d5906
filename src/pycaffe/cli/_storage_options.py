"""The options that say how a tool stores images in a database, for convert_imageset and convert_annoset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Function = TypeVar("_Function", bound=Callable[..., Any])

_FLAG: dict[str, Any] = {"type": bool, "default": False, "metavar": "[=BOOL]"}
OPTIONS = (
    click.option("--gray", **_FLAG, help="Read the images as grey ones."),
    click.option("--shuffle", **_FLAG, help="Store them in random order."),
    click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), default="lmdb", show_default=True),
    click.option("--resize_width", type=int, default=0, help="Width that images are resized to; with --resize_height."),
    click.option("--resize_height", type=int, default=0, help="Height that images are resized to."),
    click.option("--check_size", **_FLAG, help="Images of two sizes are an error."),
    click.option("--encoded", **_FLAG, help="Store image files, not pixels."),
    click.option("--encode_type", default="", help="The format to store, such as png or jpg; else the file's own."),
    click.argument("root_folder", metavar="ROOTFOLDER/"),
    click.argument("list_file", metavar="LISTFILE"),
    click.argument("path", metavar="DB_NAME"),
)


def storage_options(function: _Function) -> _Function:
    """Adds OPTIONS to a command, in their order."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def image_format(options: dict[str, Any]) -> Any:
    """Takes those of the options that make the ImageFormat; the others stay."""
    from pycaffe.data.convert_imageset import ImageFormat

    return ImageFormat(**{name: options.pop(name) for name in ImageFormat._fields if name in options})
