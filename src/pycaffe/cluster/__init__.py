"""Training and scoring on many machines, on Ray."""

from pycaffe.cluster.protocol.assignment import CountedSteps
from pycaffe.cluster.scoring.datasets import Mapped, map_dataset
from pycaffe.cluster.training.control import RunControl
from pycaffe.cluster.training.run import Run, TraceEvent
from pycaffe.cluster.training.train import train

__all__ = ["CountedSteps", "Mapped", "Run", "RunControl", "TraceEvent", "map_dataset", "train"]
