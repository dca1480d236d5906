"""Workers: `Pool` runs a net over any number of items, in processes, threads, or the caller's own thread."""

from __future__ import annotations

from pycaffe.workers.pool import Pool
from pycaffe.workers.result import Result
from pycaffe.workers.stats import PoolStats, WorkerStats
from pycaffe.workers.with_context import WithContext

__all__ = ["Pool", "PoolStats", "Result", "WithContext", "WorkerStats"]
