from __future__ import annotations

import pathlib
import sys

import pytest

import pycaffe.cli
from pycaffe.cli._training_log import read_training_log
from pycaffe.cli.plot import _draw, _labels
from tests.cli.test_training_log import LOG


@pytest.fixture
def logs(tmp_path: pathlib.Path) -> list[str]:
    names = []
    for name in ("first", "second"):
        (tmp_path / f"{name}.log").write_text(LOG)
        names.append(str(tmp_path / f"{name}.log"))
    return names


def plot(*words: str) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        pycaffe.cli.main(["plot", *map(str, words)])
    return end.value.code


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PNG", b"\x89PNG")]
)
def test_pictures(
    logs: list[str], tmp_path: pathlib.Path, ending: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"curves.{ending}"
    assert plot(*logs, "-o", str(out)) == 0
    assert out.read_bytes().startswith(magic)
    assert capsys.readouterr().out == f"Wrote {out}: 2 run(s), 20 curve(s).\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, "first.log", "second.log"])


def test_without_a_name_the_picture_is_beside_the_first_log(
    logs: list[str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plot(*logs) == 0
    assert (tmp_path / "first.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out == f"Wrote {tmp_path / 'first.png'}: 2 run(s), 20 curve(s).\n"


def test_each_kind_of_series_has_its_panel(logs: list[str]) -> None:
    run = read_training_log(logs[0])
    figure = _draw([run], ["first"], "iterations")
    found = {axes.get_title(): [line.get_label() for line in axes.lines] for axes in figure.axes}
    assert found == {
        "loss": ["test net #0/(loss of the net)", "test net #0/loss", "loss", "train/loss"],
        "accuracy": ["test net #0/accuracy", "test net #1/accuracy"],
        "other outputs": ["train/box", "train/box #2"],
        "learning rate": ["lr"],
        "iterations a second": ["iterations/s"],
    }
    (rate,) = figure.axes[3].lines
    assert (list(rate.get_xdata()), list(rate.get_ydata())) == ([0, 100], [0.01, 0.00992565])


@pytest.mark.parametrize(
    ("output", "panel"),
    [
        ("loss1/top-1", "accuracy"),  # GoogLeNet
        ("loss3/top-5", "accuracy"),
        ("loss2/loss1", "loss"),
        ("acc/top1", "accuracy"),
        ("accuracy_top5", "accuracy"),
        ("acc", "accuracy"),
        ("cls_Acc", "accuracy"),
        ("detection_eval", "accuracy"),  # SSD
        ("mAP", "accuracy"),
        ("mbox_loss", "loss"),
        ("map_features", "other outputs"),
        ("stop1", "other outputs"),
        ("prob", "other outputs"),
    ],
)
def test_the_panel_of_an_output_of_which_the_log_says_no_weight(
    tmp_path: pathlib.Path, output: str, panel: str
) -> None:
    begin = "I0101 00:00:01.000000   123 solver.cpp"
    (tmp_path / "a.log").write_text(
        f"{begin}:347] Iteration 0, Testing net (#0)\n{begin}:414]     Test net output #0: {output} = 0.5\n"
    )
    (axes,) = _draw([read_training_log(tmp_path / "a.log")], ["a"], "iterations").axes
    assert (axes.get_title(), [line.get_label() for line in axes.lines]) == (panel, [f"test/{output}"])


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (("runs/first.log", "old/second.txt"), ["first", "second"]),
        (("/home/someone/runs/a/train.log", "/home/someone/runs/b/train.log"), ["a/train.log", "b/train.log"]),
        (("train.log", "../train.log"), ["{here}/train.log", "train.log"]),
        (("run.log", "run.txt"), ["run.log", "run.txt"]),
    ],
)
def test_runs_are_called_by_what_tells_them_apart(paths: tuple[str, ...], labels: list[str]) -> None:
    here = pathlib.Path().absolute().name
    assert _labels(paths) == [label.format(here=here) for label in labels]


def test_several_runs_over_seconds(logs: list[str]) -> None:
    runs = [read_training_log(log) for log in logs]
    figure = _draw(runs, ["a", "b"], "seconds")
    lines = figure.axes[3].lines
    assert [line.get_label() for line in lines] == ["a: lr", "b: lr"]
    assert list(lines[1].get_xdata()) == pytest.approx([4, 20])
    assert {axes.get_xlabel() for axes in figure.axes} == {"seconds"}


def test_no_two_curves_of_a_panel_look_alike(logs: list[str]) -> None:
    runs = [read_training_log(logs[0]) for _ in range(5)]
    loss = _draw(runs, list("abcde"), "iterations").axes[0]
    assert len(loss.lines) == 20  # matplotlib has ten colours
    assert len({(line.get_color(), line.get_linestyle()) for line in loss.lines}) == 20


def test_what_cannot_be_drawn(logs: list[str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plot(logs[0], "-o", str(tmp_path / "curves.txt")) == 2
    assert "Give a name that ends in .png, .svg or .pdf." in capsys.readouterr().err
    assert plot(str(tmp_path / "none.log"), "-o", str(tmp_path / "a.png")) == 2
    assert "Could not read the log" in capsys.readouterr().err
    assert plot(logs[0], "-o", str(tmp_path / "none" / "a.png")) == 1
    assert f"No such file or directory: '{tmp_path}/none/a.png'" in capsys.readouterr().err
    assert plot("-o", str(tmp_path / "a.png")) == 2
    assert "Missing argument" in capsys.readouterr().err


def test_without_matplotlib(
    logs: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert plot(logs[0], "-o", str(tmp_path / "a.png")) == 2
    assert (
        'Drawing curves needs matplotlib, which is not installed. Install it: pip install "pycaffe[plot]"'
        in capsys.readouterr().err
    )
