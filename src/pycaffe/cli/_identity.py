"""Which job a file of records is of: FILE.job beside it says so, and is locked while a process is at it.

    {"verb": "classify", "model": "blake2b:…", "weights": "blake2b:…", "settings": {"top": 5, "scale": 1.0, …}}

A job is what its records depend on: the contents of model and weights, and the settings that change results. Which
images there are, workers, batches, devices and tries make no difference to it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import click

Identity = dict[str, Any]


def identity(verb: str, model: str, weights: str, settings: Mapping[str, Any]) -> Identity:
    """The identity of a job. Reads all of the weights: 0.4 s for CaffeNet's 244 MB.

    Raises:
        OSError: a file cannot be read.
    """
    return {
        "verb": verb,
        "model": hash_of_file(model),
        "weights": hash_of_file(weights),
        "settings": json.loads(json.dumps(settings)),  # as it comes back from the file
    }


def hash_of(data: Any) -> str:
    """A hash of bytes, or of what gives its bytes as they are."""
    return f"blake2b:{hashlib.blake2b(data, digest_size=20).hexdigest()}"


def hash_of_file(name: str) -> str:
    """A hash of a file's bytes."""
    state = hashlib.blake2b(digest_size=20)
    block = bytearray(1 << 20)
    view = memoryview(block)
    with open(name, "rb", buffering=0) as file:
        while size := file.readinto(block):
            state.update(view[:size])
    return f"blake2b:{state.hexdigest()}"


class JobFile:
    """FILE.job, open and locked.

    Raises:
        click.UsageError: the folder cannot be written, or another process is at the same job.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._name = f"{out}.job"
        try:
            self._descriptor = os.open(self._name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise click.UsageError(f"Could not write {out!r}: {error.strerror} ({self._name!r}).") from error
        if not _lock(self._descriptor):
            os.close(self._descriptor)
            raise click.UsageError(f"Another process is writing {out!r}.")

    def check(self, job: Identity) -> None:
        """Raises click.UsageError where the file is of another job than `job`, or does not tell."""
        with open(self._descriptor, "rb", closefd=False) as file:
            file.seek(0)
            text = file.read()
        try:
            known = json.loads(text)
            differences = [_difference(known, job, key) for key in ("verb", "model", "weights")]
            differences += [
                _difference(known["settings"], job["settings"], key)
                for key in sorted({*known["settings"], *job["settings"]})
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise click.UsageError(
                f"{self._out!r} cannot be resumed: {self._name!r}, which would say of what job it is, is not there "
                "or is damaged."
            ) from error
        different = [text for text in differences if text]
        if different:
            raise click.UsageError(
                f"{self._out!r} is of another job: {'; '.join(different)}. Give another --out, or the same job."
            )

    def write(self, job: Identity) -> None:
        """Says that the file, which has no records yet, is of `job`."""
        with open(self._descriptor, "wb", closefd=False) as file:
            file.seek(0)
            file.truncate()
            file.write((json.dumps(job, indent=1) + "\n").encode("ascii"))

    def __enter__(self) -> JobFile:
        return self

    def __exit__(self, *exception: object) -> None:
        refused = not os.fstat(self._descriptor).st_size
        os.close(self._descriptor)
        if refused:
            os.unlink(self._name)


def _difference(known: Mapping[str, Any], asked: Mapping[str, Any], key: str) -> str | None:
    before, now = known.get(key), asked.get(key)
    if before == now:
        return None
    if any(str(value).startswith("blake2b:") for value in (before, now)):
        return f"its {key} had other contents"
    return f"its {key} was {before!r}, and is {now!r}"


def _lock(descriptor: int) -> bool:
    """Takes the lock, which the end of this process releases; False if somebody has it. Windows has none."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True
