"""`caffe train --tensorboard DIR`: what the log says, as event files.

The log's own lines are read, so that TensorBoard, `caffe plot` and the original's parse_log.py show the same numbers.
"""

from __future__ import annotations

import logging

from pycaffe.cli._training_log import LogReader
from pycaffe.errors import MissingExtra
from pycaffe.glog import GlogFormatter

__all__ = ["TensorBoardHandler"]

FLUSH_SECONDS = 10


class TensorBoardHandler(logging.Handler):
    """Writes each measurement of the log as a scalar: loss, lr, iterations/s, train/NAME, test/NAME.

    Args:
        folder: where the event files go.
        purge_from: the iteration that the run begins with; what an earlier run in this folder wrote from there on is
            hidden.

    Raises:
        MissingExtra: tensorboardX is not installed.
    """

    def __init__(self, folder: str, purge_from: int) -> None:
        super().__init__(logging.INFO)
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise MissingExtra.of("tensorboardX", "tensorboard", "Writing event files") from error
        self.setFormatter(GlogFormatter())
        self._reader = LogReader()
        self._writer = SummaryWriter(folder, purge_step=purge_from or None, flush_secs=FLUSH_SECONDS)

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line of the log."""
        for measurement in self._reader.read(f"{self.format(record)}\n"):
            self._writer.add_scalar(measurement.series, measurement.value, measurement.iteration, record.created)

    def close(self) -> None:
        """Writes the rest."""
        self._writer.close()
        super().close()
