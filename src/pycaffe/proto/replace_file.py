"""Writes a file as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """The name of a new file beside `path`, which takes its place at the end of the block, and is removed on an error.

    A weights file is mapped by its readers: to write it in place would change or kill them. A link is followed.

    Raises:
        OSError: the file cannot be written; the error names `path`.
    """
    target = os.path.realpath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename in (None, temporary):  # None: in write
            error.filename = os.fspath(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
