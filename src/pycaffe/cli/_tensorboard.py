"""`caffe train --tensorboard DIR`: what the log says, as event files.

The log's own lines are read, so that TensorBoard, `caffe plot` and the original's parse_log.py show the same numbers.
They are written by the thread that logs: tensorboardX's SummaryWriter has one of its own, and where that finds the disk
full it dies, and training waits for it for ever.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from pycaffe.cli._training_log import LogReader
from pycaffe.errors import MissingExtra
from pycaffe.glog import GlogFormatter

__all__ = ["TensorBoardHandler"]

FLUSH_SECONDS = 10.0
logger = logging.getLogger("pycaffe.cli")


class TensorBoardHandler(logging.Handler):
    """Writes each measurement of the log as a scalar: loss, lr, iterations/s, train/NAME, test/NAME.

    Where the files cannot be written any more, as on a full disk, the log says so, and training goes on without them.

    Args:
        folder: where the event files go.
        purge_from: the iteration that the run begins with; what an earlier run in this folder wrote from there on is
            hidden.

    Raises:
        MissingExtra: tensorboardX is not installed.
        OSError: there can be no file in the folder.
    """

    def __init__(self, folder: str, purge_from: int) -> None:
        super().__init__(logging.INFO)
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.record_writer import directory_check
        except ImportError as error:
            raise MissingExtra.of("tensorboardX", "tensorboard", "Writing event files") from error
        self.setFormatter(GlogFormatter())
        self._event = Event
        self._reader = LogReader()
        self._folder = folder
        self._next_flush = 0.0
        directory_check(folder)
        self._writer: Any = EventsWriter(os.path.join(folder, "events"), f".{os.getpid()}")
        if purge_from:
            self._write([Event(step=purge_from, session_log=SessionLog(status=SessionLog.START))])

    def emit(self, record: logging.LogRecord) -> None:
        """Takes a line of the log."""
        if self._writer is None:
            return
        found = self._reader.read(f"{self.format(record)}\n")
        events = [self._event(step=measured.iteration, wall_time=record.created) for measured in found]
        for event, measured in zip(events, found):
            event.summary.value.add(tag=measured.series, simple_value=measured.value)
        self._write(events, record.created)

    def _write(self, events: list[Any], time: float = 0.0) -> None:
        try:
            for event in events:
                self._writer.write_event(event)
            if events and time >= self._next_flush:
                self._writer.flush()
                self._next_flush = time + FLUSH_SECONDS
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        logger.error(
            f"Could not write the event files for TensorBoard to {self._folder!r}: {error.strerror or error}. "
            "Training goes on without them."
        )

    def close(self) -> None:
        """Writes the rest."""
        try:
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            self._give_up(error)
        super().close()
