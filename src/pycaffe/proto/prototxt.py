"""Reads prototxt: nets and solvers, upgraded as the original upgrades them on reading.

protobuf's own text parser does the work. This module adds what C++'s parser, and so Caffe, accepts beyond it (`- 5`,
`3stride: 1`, strings over several lines, bytes that are no UTF-8), and says where an error is: file, line, column and
layer.
"""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

from google.protobuf import text_format

from pycaffe.errors import ProtoError, did_you_mean
from pycaffe.proto.layer_lines import LayerBlock, find_blocks
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.schema import POOL, NetParameter, SolverParameter
from pycaffe.proto.upgrade import upgrade_net_as_needed, upgrade_snapshot_prefix, upgrade_solver_as_needed

__all__ = ["NetSource", "load_net", "parse_net", "parse_text", "read_net", "read_solver", "read_text"]

# What C++'s parser takes and Python's does not: a minus apart from its number, a name right after a number, a string
# over several lines, and in older releases a suffix F. Whole comments and strings come first, so that nothing inside
# them matches. An open string goes to the end: to give up on it and look again from the next quote would take quadratic
# time.
_CPP_ONLY = re.compile(
    r"""(?P<comment>\#[^\n]*)
    | (?P<string>"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z) | '[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<minus>-)(?P<gap>\s+)(?P<value>[0-9.A-Za-z_]+)
    | (?P<number>0[xX][0-9a-fA-F]+ | (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)(?P<name>[A-Za-z_])?""",
    re.VERBOSE | re.DOTALL,
)
MAX_REASON = 400
_NO_FIELD = re.compile(r'type "(?P<type>[\w.]+)" .*?no field named "(?P<name>[^"]*)"')
_NO_VALUE = re.compile(r'type "(?P<type>[\w.]+)" has no value named (?P<name>\w+)')
_PLACE = re.compile(r"^\d+:\d+ : (?:'.*': )?")  # newer releases quote the line, too


def read_net(path: str | os.PathLike[str]) -> Any:
    """The NetParameter of a prototxt, upgraded. As in ReadNetParamsFromTextFileOrDie; ProtoError instead of the end."""
    return load_net(path).param


def load_net(path: str | os.PathLike[str]) -> NetSource:
    """As read_net, with the line of each layer."""
    return parse_net(read_text(path), os.fspath(path))


def read_solver(path: str | os.PathLike[str]) -> Any:
    """The SolverParameter of a prototxt, upgraded. As in ReadSolverParamsFromTextFileOrDie."""
    name = os.fspath(path)
    param = parse_text(SolverParameter(), read_text(path), name)
    upgrade_solver_as_needed(param, name)
    upgrade_snapshot_prefix(param, name)
    return param


def parse_net(text: str, filename: str = "", *, skip_unknown: bool = False) -> NetSource:
    """The upgraded net of a prototxt's text; `filename` is for messages.

    With `skip_unknown` fields that no Caffe knows are left out with a warning, as in OpenCV.
    """
    read = _parse_without_unknown if skip_unknown else parse_text
    param = read(NetParameter(), text, filename)
    blocks = find_blocks(text)
    layers = [block.line for block in blocks if block.field == ("layers" if param.layers else "layer")]
    if len(layers) != len(param.layers or param.layer):  # layers written as a list, [{...}, {...}]
        layers = [0] * len(param.layers or param.layer)
    inputs = [block.line for block in blocks if block.field == "input"]
    source = NetSource(param, filename, layers, inputs[0] if inputs else 0)
    upgrade_net_as_needed(source)
    return source


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a prototxt file. ProtoError where it is missing, a folder, empty or binary."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read(65536)
            if b"\0" in data:
                raise ProtoError(
                    f"Failed to parse file: {name} is binary, not a prototxt. Are model and weights swapped?"
                )
            data += file.read()
    except FileNotFoundError:
        base = "" if os.path.isabs(name) else f" A relative path starts at the working directory, {os.getcwd()!r}."
        raise ProtoError(f"Could not open file {name} (File not found).{base}") from None
    except (OSError, ValueError) as error:
        kind = "is a folder" if os.path.isdir(name) else str(error)
        raise ProtoError(f"Could not open file {name}: {kind}.") from None
    text = _decode(data)
    if not re.sub(r"#[^\n]*", "", text).strip():
        raise ProtoError(f"Failed to parse file: {name} is empty.")
    return text


def _decode(data: bytes) -> str:
    """UTF-8 without its mark; a line that is not (a comment in GBK, say) byte by byte, as C++ does not care."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "\n".join(_decode_line(line) for line in data.split(b"\n"))


def _decode_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1")


def parse_text(message: Any, text: str, filename: str = "", *, skip_unknown: bool = False) -> Any:
    """Parses prototxt into `message` and returns it; with `skip_unknown` unknown fields are left out.

    Raises ProtoError with file, line, column, layer, and for a misspelt field or value the nearest known one.
    """
    error = _parse(text, message, skip_unknown)
    if error is None:
        return _check_required(message, filename)
    respelt = _CPP_ONLY.sub(_respell, text)
    if respelt != text:
        error = _parse(respelt, message, skip_unknown)
    if error is not None:
        # Last, because a forgotten quote looks like a string over several lines, too; the error above says that better.
        joined = _CPP_ONLY.sub(_join_lines, respelt)
        if joined == respelt or _parse(joined, message, skip_unknown) is not None:
            raise _failure(message, respelt, filename, error)
    return _check_required(message, filename)


def _parse_without_unknown(message: Any, text: str, filename: str) -> Any:
    try:
        return parse_text(message, text, filename)
    except ProtoError as error:
        known = parse_text(message, text, filename, skip_unknown=True)  # raises where that is not all that is wrong
        warnings.warn(f"{error} This field, and others like it, are left out.", UserWarning, stacklevel=4)
        return known


def _parse(text: str, message: Any, skip_unknown: bool) -> Exception | None:
    """Parses into the emptied message; the error, if there is one."""
    message.Clear()
    try:
        text_format.Parse(text, message, allow_unknown_field=skip_unknown)
    except (text_format.ParseError, RecursionError, ValueError, OverflowError) as error:
        return error
    return None


def _respell(match: re.Match[str]) -> str:
    """The same token for Python's parser, with as many lines, so that errors keep theirs."""
    if match["minus"]:
        return match["minus"] + match["value"] + match["gap"]
    if match["number"]:
        number = match["number"] if match["number"][:2] in ("0x", "0X") else match["number"].replace("F", "f")
        return f"{number} {match['name']}" if match["name"] else number
    return match[0]


def _join_lines(match: re.Match[str]) -> str:
    """A string over several lines on one, the line breaks after it."""
    string = match["string"]
    if not string or "\n" not in string:
        return match[0]
    return string.replace("\\\n", "\\n").replace("\n", "\\n") + "\n" * string.count("\n")


def _check_required(message: Any, filename: str) -> Any:
    if not message.IsInitialized():
        missing = ", ".join(message.FindInitializationErrors())
        raise ProtoError(
            f"Failed to parse {type(message).__name__}{_file(filename)}: missing required fields: {missing}."
        )
    return message


def _file(filename: str) -> str:
    return f" file: {filename}" if filename else ""


def _failure(message: Any, text: str, filename: str, error: Exception) -> ProtoError:
    kind = type(message).__name__
    if isinstance(error, RecursionError):
        return ProtoError(f"Failed to parse {kind}{_file(filename)}: blocks are nested too deeply.")
    line = error.GetLine() if isinstance(error, text_format.ParseError) else None
    if line is None or not isinstance(error, text_format.ParseError):
        return ProtoError(f"Failed to parse {kind}{_file(filename)}: {_shorten(str(error))}.")
    column = error.GetColumn() or 1
    reason = _shorten(_PLACE.sub("", str(error)).rstrip("."))
    block = _block_at(text, line, column)
    layer = "" if block is None else f", layer {block.name!r}" if block.name else ", in a layer without a name"
    return ProtoError(
        f"Failed to parse {kind} file: {filename or '<text>'}:{line}:{column}{layer}: {reason}.{_hint(reason)}"
    )


def _shorten(reason: str) -> str:
    """Without the middle of a long one: an unclosed string is quoted whole."""
    return reason if len(reason) <= MAX_REASON else f"{reason[: MAX_REASON // 2]} ... {reason[-MAX_REASON // 2 :]}"


def _block_at(text: str, line: int, column: int) -> LayerBlock | None:
    before = text.split("\n", line)[: line - 1]
    offset = sum(len(item) + 1 for item in before) + column - 1
    for block in find_blocks(text):
        if block.field != "input" and block.start <= offset <= block.end:
            return block
    return None


def _hint(reason: str) -> str:
    unknown = _NO_FIELD.search(reason)
    if unknown:
        message = _find(POOL.FindMessageTypeByName, unknown["type"])
        if message is None:
            return ""
        return did_you_mean(unknown["name"], message.fields_by_name) or _other_kind(message.name, unknown["name"])
    value = _NO_VALUE.search(reason)
    if value:
        enum = _find(POOL.FindEnumTypeByName, value["type"])
        return did_you_mean(value["name"], enum.values_by_name) if enum is not None else ""
    return ""


def _other_kind(message: str, field: str) -> str:
    """For a solver given as a net, and the other way round."""
    if message == "NetParameter" and field in SolverParameter.DESCRIPTOR.fields_by_name:
        return " This is a solver; its field 'net' names the net."
    if message == "SolverParameter" and field in NetParameter.DESCRIPTOR.fields_by_name:
        return " This is a net, not a solver."
    return ""


def _find(find: Any, name: str) -> Any:
    try:
        return find(name)
    except KeyError:
        return None
