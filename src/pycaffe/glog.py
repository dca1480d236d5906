"""Log lines in the original's glog form, for those who ask.

pycaffe logs through `logging` under the name "pycaffe" and is silent by default. `GLOG_minloglevel` (0 INFO, 1 WARNING,
2 ERROR, 3 FATAL) in the environment, or `caffe.init_log`, puts the messages from that level up on stderr in the form
`I0210 13:39:22.381027 25210 solver.cpp:204] Iteration 0, loss = 2.3`.

Lines that the original logs, too, name the original's place, since people's scripts look for it: `extra={"place":
"solver.cpp:239"}`. The others name ours.
"""

from __future__ import annotations

import logging
import os
import sys
import time

__all__ = ["GlogFormatter", "init_from_environment", "init_log", "log"]

LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
_LETTERS = {logging.DEBUG: "I", logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
_handler: logging.Handler | None = None

logging.getLogger("pycaffe").addHandler(logging.NullHandler())


class GlogFormatter(logging.Formatter):
    """Formats a record as glog does."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        micro = int(record.created % 1 * 1e6)
        letter = _LETTERS.get(record.levelno, "I")
        place = getattr(record, "place", None) or f"{record.filename}:{record.lineno}"
        return f"{letter}{clock}.{micro:06d} {record.process or 0:5d} {place}] {record.getMessage()}"


def init_log(level: int = 0) -> None:
    """Shows messages from `level` up (0 INFO ... 3 FATAL) on stderr; called again it changes the level."""
    global _handler
    logger = logging.getLogger("pycaffe")
    if _handler is not None:
        logger.removeHandler(_handler)
    _handler = logging.StreamHandler(sys.stderr)
    _handler.setFormatter(GlogFormatter())
    _handler.setLevel(LEVELS[min(max(level, 0), 3)])
    logger.addHandler(_handler)
    logger.setLevel(LEVELS[min(max(level, 0), 3)])


def init_from_environment() -> None:
    """Does what `GLOG_minloglevel` asks; nothing without it."""
    value = os.environ.get("GLOG_minloglevel", "")  # noqa: SIM112 (glog's own name)
    if value.isdigit():
        init_log(int(value))


def log(message: str) -> None:
    """Logs a line at INFO."""
    logging.getLogger("pycaffe").info(message, stacklevel=2)
