"""Training and scoring on many machines, on Ray."""

from pycaffe.cluster.control import RunControl
from pycaffe.cluster.datasets import Mapped, map_dataset
from pycaffe.cluster.run import Run, TraceEvent
from pycaffe.cluster.training import train

__all__ = ["Mapped", "Run", "RunControl", "TraceEvent", "map_dataset", "train"]
