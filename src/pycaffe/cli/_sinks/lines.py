"""The sink of a format that can be appended to: the log is the file."""

from __future__ import annotations

from pycaffe.cli._sinks.log import Codec, Log
from pycaffe.cli._sinks.rows import Row
from pycaffe.cli._sinks.seen import SeenPaths

__all__ = ["LinesSink"]


class LinesSink:
    """JSON Lines or CSV, to a file or standard output ("-")."""

    def __init__(self, name: str, codec: Codec) -> None:
        self._log = Log(name, codec)

    def holds_records(self) -> bool:
        """Whether the file is not empty."""
        return self._log.size > 0

    def resume(self, seen: SeenPaths) -> int:
        """See `Sink`."""
        return self._log.resume(seen)

    def write(self, row: Row) -> None:
        """See `Sink`."""
        self._log.write(row)

    def close(self, complete: bool) -> None:
        """Closes the file."""
        self._log.close()
