"""Logs of runs on a cluster, and of one process."""

from __future__ import annotations

import pathlib

import pytest

from pycaffe.cli._training_log import read_training_log


def numbers_of(log: pathlib.Path) -> dict[str, dict[int, float]]:
    """What `caffe plot` draws, but for how fast it went: by series and iteration."""
    series = read_training_log(log).series
    return {
        name: {iteration: point.value for iteration, point in points.items()}
        for name, points in series.items()
        if name != "iterations/s"
    }


def assert_same_log(log: pathlib.Path, expected: pathlib.Path, rel: float) -> None:
    """The same series at the same iterations; rates and tests with the same values.

    The losses of training are those of one worker's batches.
    """
    found, wanted = numbers_of(log), numbers_of(expected)
    assert {name: list(points) for name, points in found.items()} == {
        name: list(points) for name, points in wanted.items()
    }
    for name in (name for name in wanted if name == "lr" or name.startswith("test")):
        assert found[name] == pytest.approx(wanted[name], rel=rel), name
