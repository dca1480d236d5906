"""`Net` and its parts: names (structure), batches, weights from and to files, debug_info."""

from pycaffe.net.net import TEST, TRAIN, Net, Outputs

__all__ = ["Net", "Outputs", "TEST", "TRAIN"]
