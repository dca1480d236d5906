"""Caffe's messages and enums, under the names that scripts import: `from caffe.proto import caffe_pb2`."""

from __future__ import annotations

from typing import Any

from pycaffe.proto.schema import EXPORTS

__all__ = sorted(EXPORTS)
globals().update(EXPORTS)


def __getattr__(name: str) -> Any:
    """Only for names that do not exist; it also tells type checkers that the names above do."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
