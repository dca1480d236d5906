"""The page: HTML, with its style, its script and its pictures inside."""

from __future__ import annotations

import html
import math
import os
from typing import TYPE_CHECKING

from pycaffe.cli._progress import duration
from pycaffe.cli._report.charts import Bar, bar_chart
from pycaffe.cli._report.thumbnails import thumbnail

if TYPE_CHECKING:
    from pycaffe.cli._report import Report, Tile
    from pycaffe.cli._report.statistics import ErrorGroups, Latencies, Throughput

__all__ = ["page"]

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #3b76c4; --dim: #777; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; vertical-align: top; }
th { font-weight: normal; color: var(--dim); } td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } rect { fill: var(--bar); } .grid { stroke: var(--line); }
.tick { font-size: 11px; fill: var(--dim); }
details { margin: .4rem 0; } summary { cursor: pointer; } details li { overflow-wrap: anywhere; }
#sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(136px, 1fr)); gap: .8rem; }
figure { margin: 0; font-size: 12px; overflow-wrap: anywhere; } figure .picture { height: 128px; display: flex;
  align-items: center; justify-content: center; background: var(--line); border-radius: 4px; overflow: hidden; }
figcaption b { display: block; } figcaption span { color: var(--dim); display: block; }
"""
SCRIPT = """
const [sheet, order, down] = ["sheet", "order", "down"].map(id => document.getElementById(id));
function sort() {
  const key = order.value, sign = down.checked ? -1 : 1, tiles = [...sheet.children];
  const number = key === "score" || key === "seconds";
  const compare = (a, b) => number ? a - b : a.localeCompare(b);
  tiles.sort((a, b) => sign * compare(a.dataset[key], b.dataset[key]));
  sheet.replaceChildren(...tiles);
}
order.addEventListener("change", sort); down.addEventListener("change", sort); sort();
"""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(report: Report, title: str, facts: list[tuple[str, str]]) -> str:
    """The whole page. Everything that comes from outside is escaped."""
    quantiles = [("median", 0.5), ("95 %", 0.95), ("99 %", 0.99)]
    latencies = [(f"an image, {name}", _seconds(report.latencies.quantile(part))) for name, part in quantiles]
    rows = [*facts, *(latencies if report.latencies.bins() else [])]
    table = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{_text(title)}</h1>
<table>{table}</table>
<h2>Images a second, over time</h2>
{_throughput(report.throughput)}
<h2>Seconds an image, in its worker</h2>
{_latencies(report.latencies)}
<h2>Errors</h2>
{_errors(report.errors)}
<h2>Images</h2>
{_sheet(report.tiles.chosen, report.tiles.count)}
</body>
</html>
"""


def _throughput(throughput: Throughput) -> str:
    counts, span = throughput.counts, throughput.span
    bars = [
        Bar(i / len(counts), (i + 1) / len(counts), count / span, f"{duration(i * span)}: {count / span:.1f} images/s")
        for i, count in enumerate(counts)
    ]
    length = span * len(counts)
    ticks = [(part, _time(length * part)) for part in (0, 0.25, 0.5, 0.75, 1)]
    return bar_chart(bars, ticks, "time", "images/s")


def _latencies(latencies: Latencies) -> str:
    bins = latencies.bins()
    if not bins:
        return "<p>None.</p>"
    low, high = math.log10(bins[0][0]), math.log10(bins[-1][1])

    def place(seconds: float) -> float:
        return (math.log10(seconds) - low) / (high - low)

    bars = [Bar(place(a), place(b), count, f"{_seconds(a)} to {_seconds(b)}: {count}") for a, b, count in bins]
    wanted = (1, 2, 5) if high - low < 2.5 else (1,)
    steps = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in wanted]
    ticks = [(place(step), _seconds(step)) for step in steps if -1e-9 <= place(step) <= 1 + 1e-9]
    return bar_chart(bars, ticks, "seconds (logarithmic)", "images")


def _errors(errors: ErrorGroups) -> str:
    groups = [
        f"<details open><summary>{_text(name)}: {group.number}</summary><ul>"
        + "".join(f"<li>{_text(path)}<br>{_text(message)}</li>" for path, message in group.examples)
        + ("<li>…</li>" if group.number > len(group.examples) else "")
        + "</ul></details>"
        for name, group in errors
    ]
    return "".join(groups) or "<p>None.</p>"


def _sheet(tiles: list[Tile], count: int) -> str:
    if not tiles:
        return "<p>None.</p>"
    keys = ["path", *(["label", "score"] if tiles[0].caption else []), "seconds"]
    options = "".join(f'<option value="{key}">{key}</option>' for key in keys)
    which = f"{len(tiles)} of {count}, chosen at random. " if count > len(tiles) else ""
    figures = "\n".join(map(_figure, tiles))
    return (
        f'<p>{which}<label>Sorted by <select id="order">{options}</select></label> '
        f'<label><input type="checkbox" id="down"> downwards</label></p>\n<div id="sheet">\n{figures}\n</div>\n'
        f"<script>{SCRIPT}</script>"
    )


def _figure(tile: Tile) -> str:
    picture = thumbnail(tile.path, tile.caption.boxes if tile.caption is not None else ())
    image = f'<img src="{picture}" alt="" loading="lazy">' if picture else "no picture"
    data = {"path": tile.path, "seconds": f"{tile.seconds:.6g}"}
    lines = [f"<span>{_text(os.path.basename(tile.path))}</span>", f"<span>{_seconds(tile.seconds)}</span>"]
    if tile.caption is not None:
        data |= {"label": tile.caption.label, "score": f"{tile.caption.score:.7g}"}
        lines.insert(0, f"<b>{_text(tile.caption.label)} {tile.caption.score:.3g}</b>")
    attributes = "".join(f' data-{key}="{_text(value)}"' for key, value in data.items())
    return (
        f'<figure{attributes} title="{_text(tile.path)}"><div class="picture">{image}</div>'
        f"<figcaption>{''.join(lines)}</figcaption></figure>"
    )


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 60 else f"{seconds:.3g} s"


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def _text(text: str) -> str:
    """Escaped for elements and quoted attributes; control characters, which HTML does not allow, as escapes."""
    printable = "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)
    return html.escape(printable)
