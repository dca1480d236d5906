from __future__ import annotations

import pytest

from pycaffe.errors import InputError
from pycaffe.export.source import source_of
from pycaffe.net import Net
from pycaffe.proto.dialect import DIALECTS, resolve_dialect
from tests.net.nets import data, layer, net_of

TEXT = data(2, 3, 4, 5) + layer("a", "ReLU", "data", "a") + layer("b", "TanH", "data", "b")


def dialects_of(net: Net) -> set[str]:
    return {node.layer.dialect for node in net._graph.nodes}


def test_a_net_without_a_dialect_is_read_as_opencv_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYCAFFE_DIALECT", raising=False)
    assert dialects_of(net_of(TEXT)) == {"opencv"}


def test_the_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCAFFE_DIALECT", "segnet")
    assert dialects_of(net_of(TEXT)) == {"segnet"}
    assert dialects_of(net_of(TEXT, dialect="rfcn")) == {"rfcn"}


def test_nets_made_from_a_net_keep_its_dialect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYCAFFE_DIALECT", "yolo")
    net = net_of(TEXT)
    monkeypatch.setenv("PYCAFFE_DIALECT", "frcnn")
    assert dialects_of(Net(source_of(net._graph))) == {"yolo"}
    assert dialects_of(net._sibling("torch")) == {"yolo"}


def test_an_unknown_dialect_is_refused_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"Unknown dialect 'segnte'. Expected one of .* Did you mean 'segnet'\?"):
        net_of(TEXT, dialect="segnte")
    monkeypatch.setenv("PYCAFFE_DIALECT", "darknet")
    with pytest.raises(InputError, match="Unknown dialect 'darknet' from PYCAFFE_DIALECT"):
        net_of(TEXT)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_itself(dialect: str) -> None:
    assert resolve_dialect(dialect) == dialect
