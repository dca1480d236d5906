"""What a user names on the command line → paths of images, one by one: a folder of a million starts at once."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator
from typing import TextIO

import click

IMAGE_SUFFIXES = frozenset(
    ".bmp .dib .gif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)  # what is taken from a folder; a file that is named is taken whatever its suffix


def expand(names: Iterable[str]) -> Iterator[str]:
    """Paths for files, folders (with all below them), globs and `@lists` (one path a line).

    A file that is not there stays in: it becomes a record with its error. So does a folder that may not be read.

    Raises:
        click.UsageError: (at once) a glob matches nothing, a list cannot be read, or there is no image at all.
    """
    paths = itertools.chain.from_iterable([_expand_one(name) for name in names])
    first = next(paths, None)
    if first is None:
        raise click.UsageError("No images: the folders and lists that were named hold none.")
    return itertools.chain([first], paths)


def can_be_counted(names: Iterable[str]) -> bool:
    """Whether the paths can be gone through twice: not where a list comes through a pipe."""
    lists = [name[1:] for name in names if name.startswith("@") and not os.path.lexists(name)]
    return all(os.path.isfile(name) for name in lists)


def _expand_one(name: str) -> Iterable[str]:
    if os.path.isdir(name):
        return _walk(name)
    if os.path.lexists(name):
        return [name]
    if name.startswith("@"):
        return _read_list(name[1:])
    if not glob.has_magic(name):
        return [name]
    matches = glob.iglob(name, recursive=True)
    first = next(matches, None)
    if first is None:
        raise click.UsageError(f"No file matches {name!r}.")
    return (
        path
        for match in itertools.chain([first], matches)
        for path in (_walk(match) if os.path.isdir(match) else [match])
    )


def _walk(folder: str) -> Iterator[str]:
    """Files in the folder's own order: sorting would have to wait for the last. Links to folders are not followed."""
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                    yield entry.path
    except OSError:
        yield folder  # what is in it is not lost silently: reading it fails, with this error
    for below in folders:
        yield from _walk(below)


def _read_list(name: str) -> Iterator[str]:
    try:
        file = open(name, encoding="utf-8", errors="surrogateescape", newline="\n")  # noqa: SIM115 (_lines closes it)
    except OSError as error:
        raise click.UsageError(f"Could not open or find file {name!r}, a list of images: {error.strerror}.") from error
    return _lines(file)


def _lines(file: TextIO) -> Iterator[str]:
    with file:
        for line in file:
            if line.strip():
                yield line.rstrip("\n")
