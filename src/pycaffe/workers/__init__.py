"""Worker processes: `Pool` runs a net over any number of items."""

from __future__ import annotations

from pycaffe.workers.pool import Pool
from pycaffe.workers.result import Result

__all__ = ["Pool", "Result"]
