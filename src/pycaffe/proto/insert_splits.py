"""Puts a Split layer behind each blob that is read more than once (insert_splits.cpp).

A blob that counts in the loss counts as read once more: the first top of its Split takes over the loss_weight.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any, overload

from pycaffe.errors import UnknownBottom, did_you_mean
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.schema import LayerParameter, NetParameter

__all__ = ["insert_splits", "split_blob_name", "split_layer_name"]

Top = tuple[int, int]  # the index of a layer, and of a top of it


@overload
def insert_splits(net: NetSource) -> NetSource: ...
@overload
def insert_splits(net: Any) -> Any: ...
def insert_splits(net: Any) -> Any:
    """A copy of a NetSource or NetParameter (filtered) with Split layers. A Split has the line of the layer before it.

    Raises UnknownBottom for a bottom that no earlier layer makes.
    """
    source = net if isinstance(net, NetSource) else NetSource(net)
    made_by, uses, loss_weights = _find_uses(source)
    split = NetParameter()
    split.CopyFrom(source.param)
    split.ClearField("layer")
    lines = []
    taken: dict[Top, int] = defaultdict(int)
    for i, original in enumerate(source.param.layer):
        layer = split.layer.add()
        layer.CopyFrom(original)
        lines.append(source.line(i))
        for j, blob in enumerate(original.bottom):
            top = made_by[i, j]
            if uses[top] > 1:
                maker = source.param.layer[top[0]].name
                layer.bottom[j] = split_blob_name(maker, blob, top[1], taken[top])
                taken[top] += 1
        for j, blob in enumerate(original.top):
            top = (i, j)
            if uses[top] > 1:
                weight = loss_weights.get(top, 0.0)
                split.layer.append(_split_layer(original.name, blob, j, uses[top], weight))
                lines.append(source.line(i))
                if weight:
                    layer.ClearField("loss_weight")
                    taken[top] += 1
    return dataclasses.replace(source, param=split, layer_lines=lines) if isinstance(net, NetSource) else split


def split_layer_name(layer: str, blob: str, top_index: int) -> str:
    """The Split behind top `top_index`, called `blob`, of `layer`: 'x_conv1_0_split'."""
    return f"{blob}_{layer}_{top_index}_split"


def split_blob_name(layer: str, blob: str, top_index: int, use: int) -> str:
    """The top of that Split for reader number `use`: 'x_conv1_0_split_1'."""
    return f"{split_layer_name(layer, blob, top_index)}_{use}"


def _find_uses(source: NetSource) -> tuple[dict[tuple[int, int], Top], dict[Top, int], dict[Top, float]]:
    """For each bottom the top that makes it; for each top how often it is used; the loss weights that are given."""
    last_top: dict[str, Top] = {}
    made_by: dict[tuple[int, int], Top] = {}
    uses: dict[Top, int] = defaultdict(int)
    loss_weights: dict[Top, float] = {}
    for i, layer in enumerate(source.param.layer):
        for j, blob in enumerate(layer.bottom):
            if blob not in last_top:
                raise UnknownBottom(
                    f"Unknown bottom blob {blob!r} (layer {layer.name!r}, bottom index {j}). In {source.where(i)}."
                    f"{did_you_mean(blob, last_top)}"
                )
            made_by[i, j] = last_top[blob]
            uses[last_top[blob]] += 1
        # An in-place layer becomes the maker of its blob: what follows reads the changed one.
        last_top.update({blob: (i, j) for j, blob in enumerate(layer.top)})
        for blob, weight in zip(layer.top, layer.loss_weight):
            top = last_top[blob]
            loss_weights[top] = weight
            if weight:
                uses[top] += 1
    return made_by, uses, loss_weights


def _split_layer(layer: str, blob: str, top_index: int, count: int, loss_weight: float) -> Any:
    tops = [split_blob_name(layer, blob, top_index, use) for use in range(count)]
    split = LayerParameter(name=split_layer_name(layer, blob, top_index), type="Split", bottom=[blob], top=tops)
    if loss_weight:
        split.loss_weight.extend([loss_weight] + [0.0] * (count - 1))
    return split
