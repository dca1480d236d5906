"""`caffe summary`: what a net consists of and costs, layer by layer; a table, or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._gflags import GflagsCommand

if TYPE_CHECKING:
    from pycaffe.net import Net

BYTES = 4  # of a float32
Table = list[tuple[str, ...]]


@click.command("summary", cls=GflagsCommand)
@click.option("--model", metavar="PROTOTXT", help="The net; may also stand alone, without the flag.")
@click.option("--weights", metavar="CAFFEMODEL", help="Say which layers this file has parameters for.")
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TEST", show_default=True)
@click.option("--level", type=int, default=0, metavar="N", help="The level of the net's state.")
@click.option("--stage", default="", metavar="S,...", help="The stages of the net's state.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("alone", metavar="[PROTOTXT]", required=False)
def command(
    model: str | None, weights: str | None, phase: str, level: int, stage: str, as_json: bool, alone: str | None
) -> None:
    """Print a net's layers with their output shapes, parameters, multiply-adds and memory.

    Multiply-adds are those of convolutions, inner products and recurrent layers; element-wise work is not counted.
    Memory is that of the values in float32; an in-place layer, or one whose output is another form of its input, adds
    none. The Split layers that Caffe inserts are left out.
    """
    from pycaffe.net import TEST, TRAIN, Net

    prototxt = model or alone
    if prototxt is None or (model and alone):
        raise click.UsageError("Give the net once: caffe summary PROTOTXT.")
    stages = [name for name in stage.split(",") if name]
    net = Net(prototxt, TRAIN if phase == "TRAIN" else TEST, level, stages, weights)
    summary = _summary(net, phase, weights)
    click.echo(json.dumps(summary, indent=2) if as_json else "\n".join(_text(summary)))


def _summary(net: Net, phase: str, weights: str | None) -> dict[str, Any]:
    """All figures, as `--json` prints them."""
    from pycaffe.proto.caffemodel import read_weights

    in_file = read_weights(weights).layers if weights is not None else None
    shared = {id(parameter.blob) for parameter in net._graph.parameters if parameter.owner is not None}
    seen: set[int] = set()
    layers = []
    for node in net._graph.nodes:
        own = [blob for blob in node.layer.blobs if id(blob) not in shared]
        entry: dict[str, Any] = {
            "name": node.name,
            "type": node.type,
            "bottoms": {net._graph.blob_names[i]: list(net._graph.blobs[i].shape) for i in node.bottom},
            "tops": {net._graph.blob_names[i]: list(net._graph.blobs[i].shape) for i in node.top},
            "parameter_shapes": [list(blob.shape) for blob in node.layer.blobs],
            "parameters": sum(blob.count for blob in own),
            "multiply_adds": node.layer.multiply_adds(),
            "activation_bytes": _new_bytes(net, node.top, seen),
        }
        if in_file is not None and node.layer.blobs:
            entry["in_weights"] = bool(in_file.get(node.name))
        if node.type != "Split":
            layers.append(entry)
    keys = ("parameters", "multiply_adds", "activation_bytes")
    total = {key: sum(entry[key] for entry in layers) for key in keys}
    total["parameter_bytes"] = BYTES * total["parameters"]
    return {"name": net._graph.name, "phase": phase, "layers": layers, "total": total}


def _new_bytes(net: Net, top: Sequence[int], seen: set[int]) -> int:
    """Bytes of a layer's tops, but for memory that an earlier layer's tops have."""
    new = 0
    for blob in (net._graph.blobs[i] for i in top):
        if id(blob.data_storage) not in seen:
            seen.add(id(blob.data_storage))
            new += BYTES * blob.count
    return new


def _text(summary: dict[str, Any]) -> list[str]:
    """The table and the totals."""
    rows: Table = [("layer", "type", "output", "parameters", "multiply-adds", "memory")]
    for entry in summary["layers"]:
        shapes = list(entry["tops"].values())
        first, *others = [" x ".join(map(str, shape)) or "1" for shape in shapes] or [""]
        figures = (_grouped(entry["parameters"]), _grouped(entry["multiply_adds"]), _size(entry["activation_bytes"]))
        rows.append((entry["name"], entry["type"], first, *figures))
        rows.extend(("", "", shape, "", "", "") for shape in others)
    total = summary["total"]
    both = total["activation_bytes"] + total["parameter_bytes"]
    lines = [f"{summary['name'] or 'Net'} ({summary['phase']})", "", *_aligned(rows), ""]
    lines += _aligned_pairs(
        [
            ("parameters", f"{total['parameters']:,} ({_size(total['parameter_bytes'])})"),
            ("multiply-adds", f"{total['multiply_adds']:,}"),
            ("memory", f"{_size(both)}: {_size(total['activation_bytes'])} of blobs, the rest parameters"),
            ("for training", f"{_size(2 * both)}, and the solver's history"),
        ]
    )
    missing = [entry["name"] for entry in summary["layers"] if entry.get("in_weights") is False]
    return lines if not missing else [*lines, "", f"Not in the weights: {', '.join(missing)}"]


def _aligned(rows: Table) -> list[str]:
    """Names to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]


def _aligned_pairs(pairs: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in pairs)
    return [f"{name.ljust(width)}  {value}" for name, value in pairs]


def _grouped(number: int) -> str:
    return f"{number:,}" if number else "-"


def _size(count: float) -> str:
    """Bytes in the unit that leaves at most three digits before the point."""
    if not count:
        return "-"
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "B" else f"{count:.0f} B"
        count /= 1000
    return f"{count:,.2f} GB"
