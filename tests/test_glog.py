from __future__ import annotations

import logging
import re

import pytest

from pycaffe.glog import GlogFormatter
from tests.net.nets import run_python

LINE = r"^{letter}\d{{4}} \d\d:\d\d:\d\d\.\d{{6}} +\d+ [\w<>]+(\.py)?:\d+\] {text}$"
SCRIPT = """
import logging, caffe
caffe.log("hello")
logging.getLogger("pycaffe.net").warning("careful %d", 7)
logging.getLogger("pycaffe").error("wrong")
"""


def lines(stderr: str) -> list[str]:
    return stderr.splitlines()


def test_a_record_in_glogs_form() -> None:
    record = logging.LogRecord("pycaffe", logging.WARNING, "/a/solver.py", 204, "Iteration %d", (5,), None)
    record.created, record.process = 1707568762.381027, 25210
    assert re.fullmatch(r"W0210 \d\d:39:22.38102[67] 25210 solver.py:204\] Iteration 5", GlogFormatter().format(record))


def test_a_record_that_names_the_originals_place() -> None:
    record = logging.LogRecord("pycaffe", logging.INFO, "/a/solver.py", 7, "Solving LeNet", (), None)
    record.place = "solver.cpp:289"
    assert GlogFormatter().format(record).endswith(" solver.cpp:289] Solving LeNet")


@pytest.mark.parametrize(
    ("level", "want"),
    [("0", ["I hello", "W careful 7", "E wrong"]), ("1", ["W careful 7", "E wrong"]), ("2", ["E wrong"]), ("3", [])],
)
def test_glog_minloglevel(level: str, want: list[str]) -> None:
    got = lines(run_python(SCRIPT, env={"GLOG_minloglevel": level}).stderr)
    assert len(got) == len(want)
    for line, expected in zip(got, want):
        assert re.match(LINE.format(letter=expected[0], text=expected[2:]), line), line


@pytest.mark.parametrize("level", ["", "loud"])
def test_silent_by_default_and_with_a_level_that_is_none(level: str) -> None:
    done = run_python(SCRIPT, env={"GLOG_minloglevel": level})
    assert (done.stdout, done.stderr) == ("", "")


def test_init_log_and_a_second_call() -> None:
    script = """
import caffe
caffe.log("before")
caffe.init_log()
caffe.log("first")
caffe.init_log(1)
caffe.log("not shown")
caffe.init_log(0, True)
caffe.log("second")
"""
    got = lines(run_python(script, env={"GLOG_minloglevel": ""}).stderr)
    assert [line.rpartition("] ")[2] for line in got] == ["first", "second"]
