from __future__ import annotations

import os
import pathlib
import re
import shutil
import sys

import pytest

import pycaffe.cli
from tests.net.nets import data, ip, layer
from tests.solvers.runs import full_disk

NET = (
    'name: "small" '
    + data(2, 5)
    + ip("fc", "data", 3, "param { lr_mult: 2 } param { lr_mult: 4 }")
    + layer("loss", "EuclideanLoss", "fc data", rest="include { phase: TRAIN }")
    + layer("prob", "Softmax", "fc", rest="include { phase: TEST }")
)


@pytest.fixture
def model(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "small.prototxt"
    path.write_text(NET)
    return str(path)


def draw(*words: object) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        pycaffe.cli.main(["draw", *map(str, words)])
    return end.value.code


# Graphviz is no Python package. Where it is not installed, pydot's parser reads the graph, and these are the pictures.
STAND_IN = """#!{python}
import sys, pydot
(graph,) = pydot.graph_from_dot_file(sys.argv[-1])
assert len(graph.get_nodes()) == 8, graph.get_nodes()  # layers and blobs
pictures = {{"-Tpng": b"\\x89PNG", "-Tsvg": b"<?xml", "-Tpdf": b"%PDF", "-Tdot": graph.to_string().encode()}}
sys.stdout.buffer.write(pictures[sys.argv[1]])
"""


@pytest.fixture
def dot(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("dot"):
        return
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "dot").write_text(STAND_IN.format(python=sys.executable))
    (tmp_path / "bin" / "dot").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)


@pytest.mark.usefixtures("dot")
@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("dot", b"digraph small")]
)
def test_pictures(model: str, tmp_path: pathlib.Path, ending: str, magic: bytes) -> None:
    out = tmp_path / f"net.{ending}"
    assert draw("--model", model, out) == 0
    assert out.read_bytes().startswith(magic)


def layers(out: pathlib.Path) -> set[str]:
    return set(re.findall(r'"?(\w+)\\n\(\w+\)', out.read_text()))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"data", "fc", "loss", "prob"}),
        (["--phase", "TRAIN"], {"data", "fc", "loss"}),
        (["--phase=TEST"], {"data", "fc", "prob"}),
    ],
)
def test_the_originals_arguments(model: str, tmp_path: pathlib.Path, options: list[str], expected: set[str]) -> None:
    out = tmp_path / "net.raw"
    assert draw(model, out, *options) == 0
    assert layers(out) == expected
    assert "rankdir=LR" in out.read_text()


def test_direction_and_multipliers(model: str, tmp_path: pathlib.Path) -> None:
    out = tmp_path / "net.raw"
    assert draw(model, out, "--rankdir", "TB", "--display_lrm") == 0
    assert "rankdir=TB" in out.read_text()
    assert "fc (InnerProduct) lr mult: 2.0, 4.0" in out.read_text()


def test_an_old_prototxt_is_drawn_upgraded(tmp_path: pathlib.Path) -> None:
    (tmp_path / "old.prototxt").write_text(
        'name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 5 '
        'layers { name: "r" type: RELU bottom: "data" top: "r" }'
    )
    assert draw(tmp_path / "old.prototxt", tmp_path / "net.raw") == 0
    assert layers(tmp_path / "net.raw") == {"input", "r"}


def test_what_cannot_be_carried_out(model: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draw(tmp_path / "a.png") == 2
    assert "Give the net once" in capsys.readouterr().err
    assert draw("--model", model, model, tmp_path / "a.png") == 2
    assert "Give the net once" in capsys.readouterr().err
    assert draw(model, tmp_path / "a.docx") == 2
    assert "Give a name that ends in .png, .svg" in capsys.readouterr().err
    assert draw("none.prototxt", tmp_path / "a.png") == 2
    assert "Could not open file none.prototxt" in capsys.readouterr().err
    with full_disk(100):
        assert draw(model, tmp_path / "a.raw") == 1
    assert f"too large: '{tmp_path / 'a.raw'}'" in capsys.readouterr().err
    assert not (tmp_path / "a.raw").exists()
