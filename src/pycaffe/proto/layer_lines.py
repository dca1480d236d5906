"""Finds in a prototxt's text where each layer is written: messages remember their fields, not their lines."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass

__all__ = ["LayerBlock", "find_blocks"]

_TOKEN = re.compile(
    r"""\#[^\n]*
    | (?P<string>"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z) | '[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z))
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<symbol>[{}<>:])""",
    re.VERBOSE | re.DOTALL,
)


@dataclass
class LayerBlock:
    """One top-level `layer`, `layers` or `input` field: its line (from 1), its span of characters, the layer's name."""

    field: str
    line: int
    start: int
    end: int
    name: str = ""


def find_blocks(text: str) -> list[LayerBlock]:
    """The top-level `layer`, `layers` and `input` fields of a net, in order. Reads broken text as far as it goes."""
    newlines = [match.start() for match in re.finditer("\n", text)]
    blocks: list[LayerBlock] = []
    depth = 0
    word = ""
    word_start = 0
    open_block: LayerBlock | None = None
    for token in _TOKEN.finditer(text):
        if token["word"]:
            word, word_start = token["word"], token.start()
            if depth == 0 and word == "input":
                blocks.append(LayerBlock("input", bisect.bisect(newlines, word_start) + 1, word_start, token.end()))
        elif token["string"] and open_block is not None and word == "name" and not open_block.name and depth <= 2:
            # Where its quote is forgotten, the string goes on; the name is what its first line has.
            open_block.name = token["string"][1:].split("\n")[0].rstrip("\r").rstrip(token["string"][0])[:200]
            word = ""
        elif token["symbol"] in ("{", "<"):
            if depth == 0 and word in ("layer", "layers"):
                open_block = LayerBlock(word, bisect.bisect(newlines, word_start) + 1, word_start, len(text))
                blocks.append(open_block)
            depth += 1
            word = ""
        elif token["symbol"] in ("}", ">"):
            depth = max(depth - 1, 0)
            word = ""
            if depth == 0 and open_block is not None:
                open_block.end = token.end()
                open_block = None
    return blocks
