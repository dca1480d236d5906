"""A NetParameter together with where each of its layers was written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["NetSource"]


@dataclass
class NetSource:
    """A net and its origin. Upgrade, filter and insert_splits keep `layer_lines` in step with `param.layer`.

    param: the NetParameter.
    filename: the prototxt, or an empty string for a net made in memory.
    layer_lines: for each layer of `param` the line (from 1) on which its block starts; 0 or no entry where unknown.
    input_line: the line of the first old-style `input` field; 0 without one.
    dialect: whose meaning types have that forks use differently (proto/dialect.py); None for the default.
    """

    param: Any
    filename: str = ""
    layer_lines: list[int] = field(default_factory=list)
    input_line: int = 0
    dialect: str | None = None

    def line(self, index: int) -> int:
        """The line of layer `index`, 0 where unknown."""
        return self.layer_lines[index] if index < len(self.layer_lines) else 0

    def where(self, index: int) -> str:
        """Layer `index` for an error message: "deploy.prototxt:41, layer 'conv1'"."""
        line = self.line(index)
        place = f"{self.filename}:{line}, " if self.filename and line else f"{self.filename}, " if self.filename else ""
        return f"{place}layer {self.param.layer[index].name!r}"
