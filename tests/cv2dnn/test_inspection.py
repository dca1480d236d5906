"""Shapes, figures and drawings that OpenCV's answers do not cover (tests/cv2dnn/test_answers.py)."""

from __future__ import annotations

import pathlib

import pydot
import pytest

import pycaffe
from pycaffe.errors import InputError
from tests.cv2dnn.answers import input_of


def test_shapes_leave_the_net_as_it_is(toy: tuple[str, str]) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    net.setInput(input_of((2, 3, 13, 11)))
    before = net.forward()
    _, _, tops = net.getLayersShapes((9, 3, 13, 11))
    assert tops[1][0].tolist() == [9, 6, 7, 6]
    assert (net.forward() == before).all()


def test_arguments(toy: tuple[str, str]) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    assert net.getFLOPS([(2, 3, 13, 11)]) == net.getFLOPS((2, 3, 13, 11)) > net.getFLOPS(1, (2, 3, 13, 11)) > 0
    with pytest.raises(InputError, match=r"Expected one shape for each of the inputs \['data'\]"):
        net.getLayersShapes([(2, 3, 13, 11), (1, 2)])
    with pytest.raises(InputError, match=r"Expected getFLOPS\(shapes\) or getFLOPS\(layerId, shapes\)"):
        net.getFLOPS()


def test_dump_is_graphviz(toy: tuple[str, str], tmp_path: pathlib.Path) -> None:
    net = pycaffe.read_net_from_caffe(*toy)
    net.setInput(input_of((4, 3, 13, 11)))
    net.forward()
    net.dumpToFile(str(tmp_path / "net.dot"))
    assert (tmp_path / "net.dot").read_text(encoding="utf-8") == net.dump()
    (graph,) = pydot.graph_from_dot_data(net.dump())
    edges = {(edge.get_source().strip('"'), edge.get_destination().strip('"')) for edge in graph.get_edges()}
    assert {("_input", "conv1"), ("conv1", "relu"), ("relu", "norm1"), ("parts", "tanh"), ("prelu", "sum")} <= edges
    labels = {node.get_name().strip('"'): node.get_label() for node in graph.get_nodes()}
    assert "kernel_size : 3\\lstride : 2\\lpad : 1\\loutput: 4 x 6 x 7 x 6" in labels["conv1"]
    assert "pool : AVE" in labels["average"]
