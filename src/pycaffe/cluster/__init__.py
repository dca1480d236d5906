"""Training and scoring on many machines, on Ray."""

from pycaffe.cluster.control import RunControl
from pycaffe.cluster.run import Run, TraceEvent
from pycaffe.cluster.training import train

__all__ = ["Run", "RunControl", "TraceEvent", "train"]
