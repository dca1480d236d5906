"""What the three `upgrade_…` verbs share: read, upgrade, say whether there was anything to do, write."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pycaffe.cli._gflags import log_to_stderr

__all__ = ["upgrade_file"]

logger = logging.getLogger(__name__)


def upgrade_file(
    tool: str, source: str, target: str, message: Any, upgrade: Callable[[Any], None], *, binary: bool
) -> None:
    """Writes the upgraded `message` of the file `source` to `target`, which may be the same file.

    Args:
        tool: the original's name of it, for the log lines.
        source: a file with such a message.
        target: where it is written to.
        message: an empty message of the file's type.
        upgrade: changes the message in place.
        binary: the files hold binary messages, not text.

    Raises:
        ProtoError: the file cannot be read, upgraded or written.
    """
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError

    from pycaffe.errors import ProtoError
    from pycaffe.proto.prototxt import parse_text, read_text
    from pycaffe.proto.replace_file import replacing

    log_to_stderr()
    kind = type(message).DESCRIPTOR.name
    if binary:
        try:
            with open(source, "rb") as file:
                message.ParseFromString(file.read())
        except (OSError, DecodeError) as error:
            raise ProtoError(f"Failed to parse input binary file as {kind}: {source}. {error}.") from error
    else:
        message = parse_text(message, read_text(source), source)
    before = message.SerializeToString(deterministic=True)
    upgrade(message)
    if message.SerializeToString(deterministic=True) == before:
        logger.error(f"File already in latest proto format: {source}", extra={"place": f"{tool}.cpp:43"})
    data = message.SerializeToString() if binary else text_format.MessageToString(message).encode()
    try:
        with replacing(target) as temporary, open(temporary, "xb") as file:
            file.write(data)
    except OSError as error:
        raise ProtoError(f"Could not write {target}: {error.strerror}.") from error
    written = f"Wrote upgraded {kind} {'binary' if binary else 'text'} proto to {target}"
    logger.info(written, extra={"place": f"{tool}.cpp:{48 if binary else 49}"})
