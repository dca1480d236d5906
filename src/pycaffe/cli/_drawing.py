"""`--draw`: photographs with their boxes, in a folder."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pycaffe.detection import Found

__all__ = ["Drawing"]

KEPT_SUFFIXES = (".jpeg", ".jpg", ".png")  # others become JPEG


class Drawing:
    """Where drawings go: below `folder`, as the images lie below the folder that all `paths` have in common.

    So two images never have one drawing, and an image that runs again replaces its own.

    Args:
        folder: is made if it is not there.
        paths: as they stand on the command line.
        names: of the classes.

    Raises:
        click.UsageError: the folder cannot be written, or lies where images are looked for, which would find drawings.
    """

    def __init__(self, folder: str, paths: Sequence[str], names: Mapping[int, str]) -> None:
        self._folder = os.path.abspath(folder)
        self._names = dict(names)
        self._base = _common_folder(list(map(_folder_of, paths)))
        for path in paths:
            if self._folder == self._base or _finds_below(path, self._folder):
                raise click.UsageError(
                    f"--draw {folder!r} lies where {path!r} finds images: they would be replaced, or drawings be taken "
                    "for them. Give another folder."
                )
        try:
            os.makedirs(self._folder, exist_ok=True)
        except OSError as error:
            raise click.UsageError(f"Could not write to the folder {folder!r}: {error.strerror}.") from error
        if not os.access(self._folder, os.W_OK):
            raise click.UsageError(f"Could not write to the folder {folder!r}: Permission denied.")

    def target(self, path: str) -> str:
        """Where the drawing of an image goes. Images beside the common folder (from a list) go below `__`."""
        parts = os.path.relpath(os.path.abspath(path), self._base).split(os.sep)
        target = os.path.join(self._folder, *("__" if part == os.pardir else part for part in parts))
        return target if target.lower().endswith(KEPT_SUFFIXES) else f"{target}.jpg"

    def draw(self, path: str, found: Found) -> None:
        """Draws what was found in an image.

        Raises:
            InputError: the image cannot be read any more.
            OSError: the drawing cannot be written, or would replace the image itself.
        """
        from pycaffe.images import decode, draw_boxes, write_image

        target = self.target(path)
        if os.path.exists(target) and os.path.samefile(path, target):
            raise FileExistsError(f"The drawing of {path!r} would replace it.")
        numbers = found.classes.tolist()
        labels = (self._names.get(number, f"class {number}") for number in numbers)
        texts = [f"{label} {score:.2f}" for label, score in zip(labels, found.scores.tolist())]
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write_image(target, draw_boxes(decode(path), found.boxes, numbers, texts))


def _is_glob(path: str) -> bool:
    return glob.has_magic(path) and not path.startswith("@") and not os.path.lexists(path)


def _folder_of(path: str) -> str:
    """The folder that holds all that a path of the command line names."""
    if os.path.isdir(path):
        return os.path.abspath(path)
    parts = os.path.abspath(path).split(os.sep)
    fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), 0) if _is_glob(path) else len(parts) - 1
    return os.sep.join(parts[:fixed]) or os.sep


def _finds_below(path: str, folder: str) -> bool:
    """Whether a path of the command line finds files that appear in or below `folder`."""
    if os.path.isdir(path) or (_is_glob(path) and "**" in path):
        top = _folder_of(path)
        return _common_folder([folder, top]) == top
    parts, own = os.path.abspath(path).split(os.sep), folder.split(os.sep)
    return _is_glob(path) and len(own) >= len(parts) - 1 and all(map(fnmatch.fnmatch, own, parts))


def _common_folder(folders: Sequence[str]) -> str:
    try:
        return os.path.commonpath(folders)
    except ValueError:  # on several drives
        return os.getcwd()
