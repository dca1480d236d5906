from __future__ import annotations

import ast
import logging
import re

import click
import pytest
from click.testing import CliRunner

from pycaffe.cli._gflags import GflagsCommand, log_to_stderr


@click.command(cls=GflagsCommand)
@click.option("--gray", type=bool, default=False)
@click.option("--shuffle", type=bool, default=True)
@click.option("--resize_height", type=int, default=0)
@click.option("--model")
@click.option("--quick", is_flag=True)
@click.argument("names", nargs=-1)
def tool(gray: bool, shuffle: bool, resize_height: int, model: str | None, quick: bool, names: tuple[str, ...]) -> None:
    click.echo(repr((gray, shuffle, resize_height, model, quick, names)))


def run(*args: str) -> object:
    result = CliRunner().invoke(tool, args)
    assert result.exit_code == 0, result.output
    return ast.literal_eval(result.output)


@pytest.mark.parametrize(
    ("args", "want"),
    [
        ("", (False, True, 0, None, False, ())),
        ("--gray", (True, True, 0, None, False, ())),
        ("-gray a b", (True, True, 0, None, False, ("a", "b"))),
        ("--gray=false", (False, True, 0, None, False, ())),
        ("-gray=T --shuffle=0", (True, False, 0, None, False, ())),
        ("--noshuffle a -nogray", (False, False, 0, None, False, ("a",))),
        ("-resize_height=256 -model m=n", (False, True, 256, "m=n", False, ())),
        ("a --resize_height 7 b --model=m --quick", (False, True, 7, "m", True, ("a", "b"))),
        ("-resize_height -3 - x", (False, True, -3, None, False, ("-", "x"))),
        ("--gray=1 -- --shuffle -x", (True, True, 0, None, False, ("--shuffle", "-x"))),
        ("--gray --nogray", (False, True, 0, None, False, ())),
        ("--model= a", (False, True, 0, "", False, ("a",))),
    ],
)
def test_forms(args: str, want: object) -> None:
    assert run(*args.split()) == want


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--nomodel", "No such option.*--nomodel"),
        ("-iterations 10", "No such option.*--iterations"),
        ("--resize_heigth=3", "No such option.*--resize_heigth"),
        ("--gray=perhaps", "'perhaps' is not a valid boolean"),
        ("--model", "requires an argument"),
        ("--resize_height=x", "'x' is not a valid integer"),
    ],
)
def test_what_is_unknown_or_wrong_is_clicks_error(args: str, message: str) -> None:
    result = CliRunner().invoke(tool, args.split())
    assert result.exit_code == 2
    assert re.search(message, result.output), result.output


def test_help_lists_the_flags() -> None:
    result = CliRunner().invoke(tool, ["--help"])
    assert result.exit_code == 0
    assert "--resize_height INTEGER" in result.output


def test_log_lines_go_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "1")
    log_to_stderr()
    logging.getLogger("pycaffe").info("quiet")
    logging.getLogger("pycaffe").warning("loud")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("W")
    assert line.endswith("] loud")
