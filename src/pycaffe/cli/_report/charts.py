"""Bar charts as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Bar", "bar_chart"]

WIDTH, HEIGHT = 900, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 24, 12, 34


class Bar(NamedTuple):
    """A bar from `begin` to `end` (parts of the axis, 0 to 1); `title` shows under the mouse. Plain text, no markup."""

    begin: float
    end: float
    value: float
    title: str


def bar_chart(bars: Sequence[Bar], ticks: Sequence[tuple[float, str]], x_name: str, y_name: str) -> str:
    """An <svg>. `ticks`: part of the horizontal axis and its text."""
    top = _round_up(max((bar.value for bar in bars), default=0) or 1)
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{y_name} by {x_name}">']
    for step in range(5):
        y = TOP + high * (1 - step / 4)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{top * step / 4:g}</text>')
    for bar in bars:
        x, width = LEFT + wide * bar.begin, max(wide * (bar.end - bar.begin) - 1, 0.5)
        height = high * bar.value / top
        parts.append(
            f'<rect x="{x:.2f}" y="{TOP + high - height:.2f}" width="{width:.2f}" height="{height:.2f}">'
            f"<title>{bar.title}</title></rect>"
        )
    for at, text in ticks:
        x = LEFT + wide * at
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{text}</text>')
    parts.append(f'<text class="tick" x="{LEFT + wide / 2}" y="{HEIGHT - 3}" text-anchor="middle">{x_name}</text>')
    return "".join([*parts, "</svg>"])


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 6, 8, 10 times a power of ten: quarters of it read well."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value * (1 - 1e-9))
