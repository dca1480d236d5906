"""What a user names on the command line → paths of images."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator

import click

IMAGE_SUFFIXES = frozenset(
    ".bmp .dib .gif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)  # what is taken from a folder; a file that is named is taken whatever its suffix


def expand(names: Iterable[str]) -> list[str]:
    """Paths for files, folders (with all below them, sorted), globs (sorted) and `@lists` (one path a line).

    A file that is not there stays in: it becomes a record with its error.

    Raises:
        click.UsageError: a glob matches nothing, a list cannot be read, or there is no image at all.
    """
    paths = [path for name in names for path in _expand_one(name)]
    if not paths:
        raise click.UsageError("No images: the folders and lists that were named hold none.")
    return paths


def _expand_one(name: str) -> Iterable[str]:
    if os.path.isdir(name):
        return _walk(name)
    if os.path.lexists(name):
        return [name]
    if name.startswith("@"):
        return _read_list(name[1:])
    if not glob.has_magic(name):
        return [name]
    matches = sorted(glob.glob(name, recursive=True))
    if not matches:
        raise click.UsageError(f"No file matches {name!r}.")
    return [path for match in matches for path in (_walk(match) if os.path.isdir(match) else [match])]


def _walk(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            if os.path.splitext(file)[1].lower() in IMAGE_SUFFIXES:
                yield os.path.join(parent, file)


def _read_list(name: str) -> list[str]:
    try:
        with open(name, encoding="utf-8", errors="surrogateescape") as file:  # paths are bytes, whatever they spell
            return [line for line in file.read().split("\n") if line.strip()]
    except OSError as error:
        raise click.UsageError(f"Could not open or find file {name!r}, a list of images: {error.strerror}.") from error
