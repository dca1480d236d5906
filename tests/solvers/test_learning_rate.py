"""The policies by their formulas."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from pycaffe.errors import SolverError
from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers.learning_rate import LearningRate


def policy(name: str, **fields: Any) -> LearningRate:
    return LearningRate(SolverParameter(lr_policy=name, base_lr=0.5, **fields))


@pytest.mark.parametrize(
    ("rate", "formula"),
    [
        (policy("fixed"), lambda i: 0.5),
        (policy("step", gamma=0.25, stepsize=3), lambda i: 0.5 * 0.25 ** (i // 3)),
        (policy("exp", gamma=0.75), lambda i: 0.5 * 0.75**i),
        (policy("inv", gamma=0.5, power=2), lambda i: 0.5 * (1 + 0.5 * i) ** -2),
        (policy("multistep", gamma=0.5, stepvalue=[2, 5]), lambda i: 0.5 * 0.5 ** ((i >= 2) + (i >= 5))),
        (policy("poly", power=2, max_iter=10), lambda i: 0.5 * (1 - i / 10) ** 2),
        (policy("sigmoid", gamma=0.5, stepsize=4), lambda i: 0.5 / (1 + math.exp(-0.5 * (i - 4)))),
        (policy("multifixed", stagelr=[3, 2, 1], stageiter=[2, 4, 6]), lambda i: 3 - (i > 2) - (i > 4)),
    ],
    ids=lambda value: value.param.lr_policy if isinstance(value, LearningRate) else "",
)  # fmt: skip
def test_the_rate_of_each_iteration(rate: LearningRate, formula: Any) -> None:
    for iteration in range(9):
        assert rate.at(iteration, 0.0) == pytest.approx(formula(iteration), rel=1e-6)


def test_plateau_lowers_the_rate_when_the_loss_falls_no_lower() -> None:
    rate = policy("plateau", gamma=0.1, plateau_winsize=[3, 2])
    losses = [5, 4, 4.5, 4.2, 4.1, 3.9, 4, 4, 4, 4, 4]
    rates = [rate.at(i, loss) for i, loss in enumerate(losses)]
    # The minimum of iteration 1 stands for three; that of 5 for two; then there is no window any more.
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.005] * 4)
    assert (rate.minimum_loss, rate.iter_last_event, rate.current_step) == (pytest.approx(3.9), 7, 2)


def test_multistep_moves_one_step_an_iteration_as_the_original() -> None:
    rate = policy("multistep", gamma=0.1, stepvalue=[0, 0])
    assert [rate.at(5, 0.0), rate.at(6, 0.0), rate.at(7, 0.0)] == pytest.approx([0.05, 0.005, 0.005])


def test_a_copy_can_be_asked_without_moving_on() -> None:
    rate = policy("multistep", gamma=0.1, stepvalue=[2])
    assert copy.copy(rate).at(2, 0.0) == pytest.approx(0.05)
    assert rate.current_step == 0


def test_the_base_rate_may_change() -> None:
    rate = policy("fixed")
    rate.param.base_lr = 0.25
    assert rate.at(3, 0.0) == 0.25


def test_restore() -> None:
    rate = policy("plateau", gamma=0.1, plateau_winsize=[3, 4])
    rate.restore(1, 2.5, 10)
    assert rate.at(13, 3.0) == pytest.approx(0.05)
    assert rate.at(14, 3.0) == pytest.approx(0.005)
    rate.restore(0, None, None)
    assert (rate.minimum_loss, rate.iter_last_event) == (1e38, 0)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("steps", {}, r"Unknown learning rate policy: steps \(known policies: fixed, .*\)\. Did you mean 'step'"),
        ("step", {"gamma": 0.1}, r"Check failed: stepsize > 0 \(0 vs\. 0\)\. Policy 'step' needs it"),
        ("exp", {"gamma": -1}, r"Check failed: gamma >= 0 \(-1 vs\. 0\), for policy 'exp'"),
        ("poly", {"power": 1}, r"Check failed: max_iter > 0"),
        ("poly", {"power": 0.5, "max_iter": 2}, "The learning rate of policy 'poly' is nan at iteration 3"),
        ("exp", {"gamma": 1e30}, "is inf at iteration 50"),
        ("multifixed", {"stagelr": [1, 2], "stageiter": [1]}, "Check failed: stageiter_size == stagelr_size"),
    ],
)
def test_what_cannot_be(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SolverError, match=message):
        policy(name, **fields).at(50 if "inf" in message else 3, 0.0)


def test_a_solver_without_a_policy_fails_at_its_first_update_as_in_the_original() -> None:
    rate = LearningRate(SolverParameter(base_lr=0.1))
    with pytest.raises(SolverError, match="Unknown learning rate policy: "):
        rate.at(0, 0.0)


def test_sigmoid_far_from_its_middle() -> None:
    assert policy("sigmoid", gamma=1, stepsize=5000).at(0, 0.0) == pytest.approx(0.0, abs=1e-200)
