"""Images, and runs of `caffe classify` and `caffe extract` in a process of their own."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import zlib
from typing import Any

import pytest

from pycaffe import cli


def command(verb: str, net: tuple[str, str], *words: Any) -> list[str]:
    options = ["--model", net[0], "--weights", net[1], "--workers", "1"]
    return [sys.executable, "-m", "pycaffe", verb, *options, *map(str, words)]


def run(verb: str, net: tuple[str, str], *words: Any, **arguments: Any) -> subprocess.CompletedProcess[str]:
    """One worker, unless the words say otherwise."""
    return subprocess.run(command(verb, net, *words), capture_output=True, text=True, timeout=100, **arguments)


def run_here(
    capsys: pytest.CaptureFixture[str], verb: str, net: tuple[str, str], *words: Any
) -> subprocess.CompletedProcess[str]:
    """As `run`, without the half second of a process of its own."""
    line = command(verb, net, *words)[3:]
    with pytest.raises(SystemExit) as ended:
        cli.main(line)
    status = ended.value.code
    assert isinstance(status, int)
    return subprocess.CompletedProcess(line, status, *capsys.readouterr())


def start(verb: str, net: tuple[str, str], *words: Any) -> subprocess.Popen[str]:
    """In a process group of its own, so that signals can go to all of it as from a terminal."""
    return subprocess.Popen(
        command(verb, net, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def write_png(path: pathlib.Path, colour: tuple[int, int, int] = (30, 20, 10), size: tuple[int, int] = (6, 8)) -> str:
    """An image of one colour (red, green, blue), without a library."""
    height, width = size
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    rows = (b"\0" + bytes(colour) * width) * height
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    data = b"".join(len(c).to_bytes(4, "big") + n + c + zlib.crc32(n + c).to_bytes(4, "big") for n, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    return str(path)


def write_images(folder: pathlib.Path, count: int) -> pathlib.Path:
    """A folder of images that all differ."""
    folder.mkdir()
    for index in range(count):
        write_png(folder / f"{index}.png", (index % 251, index // 251, 7))
    return folder


def records(text: str) -> list[dict[str, Any]]:
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]
