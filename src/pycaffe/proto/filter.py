"""Which layers belong to a net in its state: phase, level and stages (Net::FilterNet and StateMeetsRule of net.cpp)."""

from __future__ import annotations

import dataclasses
from typing import Any, overload

from pycaffe.errors import NetError
from pycaffe.proto.net_source import NetSource
from pycaffe.proto.schema import NetParameter

__all__ = ["filter_net", "state_meets_rule"]


@overload
def filter_net(net: NetSource) -> NetSource: ...
@overload
def filter_net(net: Any) -> Any: ...
def filter_net(net: Any) -> Any:
    """A copy of a NetSource or NetParameter with only the layers that its `state` includes.

    A layer with `include` rules is in where any of them is met; one with `exclude` rules where none is; both is a
    NetError.
    """
    source = net if isinstance(net, NetSource) else NetSource(net)
    filtered = NetParameter()
    filtered.CopyFrom(source.param)
    filtered.ClearField("layer")
    lines = []
    for index, layer in enumerate(source.param.layer):
        if layer.include and layer.exclude:
            raise NetError(f"Specify either include rules or exclude rules; not both. In {source.where(index)}.")
        rules = layer.include or layer.exclude
        met = any(state_meets_rule(source.param.state, rule) for rule in rules)
        if met == bool(layer.include):
            filtered.layer.add().CopyFrom(layer)
            lines.append(source.line(index))
    return dataclasses.replace(source, param=filtered, layer_lines=lines) if isinstance(net, NetSource) else filtered


def state_meets_rule(state: Any, rule: Any) -> bool:
    """Whether a NetState meets all that a NetStateRule sets."""
    return (
        not (rule.HasField("phase") and rule.phase != state.phase)
        and not (rule.HasField("min_level") and state.level < rule.min_level)
        and not (rule.HasField("max_level") and state.level > rule.max_level)
        and set(rule.stage) <= set(state.stage)
        and set(rule.not_stage).isdisjoint(state.stage)
    )
