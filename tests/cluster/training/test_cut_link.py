"""Two nodes in network namespaces of their own; the link between them is cut for 10 s, then for 60 s: 100 s in all."""

from __future__ import annotations

import pathlib

import pytest

from tests.cluster.training.small_net import write_solver
from tests.cluster.training.two_namespaces import run_with_cuts, two_nodes, why_no_namespaces


@pytest.mark.slow
def test_a_run_outlives_a_link_that_is_cut(tmp_path: pathlib.Path) -> None:
    """10 s are waited for. After 60 s Ray has given the other node up, and the run went on without it."""
    if why := why_no_namespaces():
        pytest.skip(f"No network namespaces can be made here: {why}")
    solver = write_solver(tmp_path, 4, "momentum: 0.9 stepsize: 1000", steps=1_000_000)
    with two_nodes() as spaces:
        told = run_with_cuts(spaces, solver, 0, seconds=200)
    assert told["while cut for 10"] == 0, "in sync nobody goes on alone"
    assert told["while cut for 60"] >= 20, "it went on while the link was cut"
    assert told["restarts"] >= 1
    assert told["iter"] > told["after"] + 20
    # Who is stopped may not come to report its last step.
    assert told["losses"] >= told["iter"] - 1
    assert told["workers"][0] == 2
    assert told["twice"] == 0, "who was cut off changes nothing"
    assert told["others"] == 0, "each read what it was to read"
    assert told["whole"], "every batch counts once, those of steps that nobody came to tell of as well"
    assert told["steps"] == told["iter"]
    assert told["loss"] < told["first_loss"]
    assert told["actors before 10"] == 4, "they are seen while they live"
    assert told["left"] == [], "of the run, on both sides of the link"
