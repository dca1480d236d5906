"""`--decode`: a user's function, named by its module or file."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from pycaffe.cli._identity import hash_of_file

__all__ = ["DecodeFunction"]


class DecodeFunction:
    """A function that each process loads by itself: it pickles whatever its module is.

    Args:
        name: MODULE:FUNCTION (the current folder is searched, too) or FILE.py:FUNCTION.

    Raises:
        click.UsageError: it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        source, _, function = name.rpartition(":")
        if not source or not function:
            raise click.UsageError(f"--decode takes MODULE:FUNCTION or FILE.py:FUNCTION, not {name!r}.")
        self._is_file = source.endswith(".py")
        self._source = os.path.abspath(source) if self._is_file else source
        self._name = function
        self._folder = os.getcwd()
        self._function: Callable[..., Any] | None = None
        try:
            self._load()
        except Exception as error:  # whatever the user's module raises
            raise click.UsageError(f"Could not load {name!r}: {type(error).__name__}: {error}") from error

    @property
    def identity(self) -> str:
        """What tells it from others, for a job's identity: the contents of its file, or its name."""
        return hash_of_file(self._source) if self._is_file else f"{self._source}:{self._name}"

    def __call__(self, outputs: dict[str, Any]) -> Any:
        """See `Decode`."""
        return self._load()(outputs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_function": None}

    def _load(self) -> Callable[..., Any]:
        if self._function is None:
            function = getattr(self._module(), self._name)
            if not callable(function):
                raise TypeError(f"{self._name!r} is {type(function).__name__}, not a function")
            self._function = function
        return self._function

    def _module(self) -> Any:
        if not self._is_file:
            if self._folder not in sys.path:
                sys.path.insert(0, self._folder)
            return importlib.import_module(self._source)
        name = os.path.splitext(os.path.basename(self._source))[0]
        spec = importlib.util.spec_from_file_location(name, self._source)
        if spec is None or spec.loader is None:
            raise ImportError(f"{self._source!r} is no Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
