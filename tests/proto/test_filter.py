"""Filtering by phase, level and stages."""

from __future__ import annotations

import pytest

from pycaffe.errors import NetError
from pycaffe.proto.filter import filter_net
from pycaffe.proto.prototxt import parse_net
from pycaffe.proto.schema import TEST, TRAIN, NetState


def included(rules: str, **state: object) -> bool:
    net = parse_net(f'layer {{ name: "l" {rules} }}').param
    net.state.CopyFrom(NetState(**state))
    return len(filter_net(net).layer) == 1


@pytest.mark.parametrize(
    ("rules", "state", "expected"),
    [
        ("", {}, True),
        ("include { phase: TRAIN }", {"phase": TRAIN}, True),
        ("include { phase: TRAIN }", {"phase": TEST}, False),
        ("include { phase: TRAIN }", {}, False),
        ("exclude { phase: TRAIN }", {"phase": TRAIN}, False),
        ("exclude { phase: TRAIN }", {"phase": TEST}, True),
        ("include {}", {"phase": TRAIN}, True),
        ("exclude {}", {"phase": TRAIN}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { max_level: 2 }", {"level": 2}, True),
        ("include { max_level: 2 }", {"level": 3}, False),
        ("include { min_level: -3 max_level: -1 }", {"level": -2}, True),
        ("include { stage: 'a' }", {"stage": ["b", "a"]}, True),
        ("include { stage: 'a' stage: 'c' }", {"stage": ["a"]}, False),
        ("include { not_stage: 'a' }", {"stage": ["a"]}, False),
        ("include { not_stage: 'a' }", {"stage": ["b"]}, True),
        ("include { stage: 'a' not_stage: 'b' }", {"stage": ["a", "b"]}, False),
        ("include { stage: 'a' } include { stage: 'b' }", {"stage": ["b"]}, True),
        ("exclude { stage: 'a' } exclude { stage: 'b' }", {"stage": ["b"]}, False),
        ("include { phase: TEST stage: 'a' }", {"phase": TRAIN, "stage": ["a"]}, False),
    ],
)
def test_rules(rules, state, expected):
    assert included(rules, **state) is expected


def test_keeps_lines_in_step_and_the_input_as_it_was():
    source = parse_net(
        'state { phase: TRAIN }\nlayer { name: "a" }\nlayer { name: "b" include { phase: TEST } }\nlayer { name: "c" }',
        "f",
    )
    filtered = filter_net(source)
    assert [layer.name for layer in filtered.param.layer] == ["a", "c"]
    assert filtered.layer_lines == [2, 4] and filtered.filename == "f"
    assert len(source.param.layer) == 3
    assert filtered.param.state.phase == TRAIN


def test_both_kinds_of_rules():
    source = parse_net('layer { name: "l" include { phase: TEST } exclude { phase: TEST } }', "f")
    with pytest.raises(NetError, match=r"either include rules or exclude rules; not both\. In f:1, layer 'l'\.$"):
        filter_net(source)
