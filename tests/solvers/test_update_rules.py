"""The arithmetic of the six rules against loops written from their formulas, and what comes before it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pycaffe.errors import SolverError
from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers.update_rules import (
    UpdateRule,
    UpdateStep,
    clip_scale,
    register_solver,
    solver_types,
    sum_of_squares,
    update,
    update_rule_class,
)

MOMENTUM, MOMENTUM2, DECAY, DELTA = 0.8, 0.95, 0.9, 1e-3


def sgd(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = MOMENTUM * h[0] + rate * g
    return h[0]


def nesterov(g: float, h: list[float], rate: float, t: int) -> float:
    before, h[0] = h[0], MOMENTUM * h[0] + rate * g
    return (1 + MOMENTUM) * h[0] - MOMENTUM * before


def ada_grad(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] += g * g
    return rate * g / (math.sqrt(h[0]) + DELTA)


def rms_prop(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = DECAY * h[0] + (1 - DECAY) * g * g
    return rate * g / (math.sqrt(h[0]) + DELTA)


def ada_delta(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = MOMENTUM * h[0] + (1 - MOMENTUM) * g * g
    step = g * math.sqrt((h[1] + DELTA) / (h[0] + DELTA))
    h[1] = MOMENTUM * h[1] + (1 - MOMENTUM) * step * step
    return rate * step


def adam(g: float, h: list[float], rate: float, t: int) -> float:
    h[0] = MOMENTUM * h[0] + (1 - MOMENTUM) * g
    h[1] = MOMENTUM2 * h[1] + (1 - MOMENTUM2) * g * g
    correction = math.sqrt(1 - MOMENTUM2 ** (t + 1)) / (1 - MOMENTUM ** (t + 1))
    return rate * correction * h[0] / (math.sqrt(h[1]) + DELTA)


FORMULAS = {
    "SGD": sgd, "Nesterov": nesterov, "AdaGrad": ada_grad, "RMSProp": rms_prop, "AdaDelta": ada_delta, "Adam": adam,
}  # fmt: skip


def rule_of(solver_type: str, **fields: Any) -> UpdateRule:
    momentum = 0.0 if solver_type in ("AdaGrad", "RMSProp") else MOMENTUM
    param = SolverParameter(momentum=momentum, momentum2=MOMENTUM2, rms_decay=DECAY, delta=DELTA, **fields)
    return update_rule_class(solver_type)(param)


def arrays(rule: UpdateRule, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    value = np.random.default_rng(1).standard_normal(size, np.float32)
    return value, [np.zeros(size, np.float32) for _ in range(rule.num_histories)]


@pytest.mark.parametrize("solver_type", FORMULAS)
def test_five_steps_are_those_of_the_formula(solver_type: str) -> None:
    rule, rng = rule_of(solver_type), np.random.default_rng(2)
    value, history = arrays(rule, 7)
    expected, expected_history = value.astype(np.float64), [[0.0, 0.0] for _ in range(7)]
    for iteration in range(5):
        rate, diff = 0.3 / (iteration + 1), rng.standard_normal(7).astype(np.float32)
        steps = [FORMULAS[solver_type](float(g), h, rate, iteration) for g, h in zip(diff, expected_history)]
        expected -= steps
        update(rule, value, diff, history, UpdateStep(rate, iteration))
        np.testing.assert_allclose(value, expected, rtol=2e-5, atol=2e-6)
        subtracted = history[0] if rule.subtracts_history else diff
        np.testing.assert_allclose(subtracted, steps, rtol=2e-5, atol=1e-6)
        for kept, want in zip(history, np.transpose(expected_history)):
            np.testing.assert_allclose(kept, want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("solver_type", FORMULAS)
def test_a_slice_is_updated_as_within_the_whole(solver_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pycaffe.solvers.update_rules._update.BLOCK", 16)  # so that the whole is many blocks
    rule, size, rng = rule_of(solver_type), 1003, np.random.default_rng(3)
    whole, whole_history = arrays(rule, size)
    parts, part_history = whole.copy(), [array.copy() for array in whole_history]
    for iteration in range(3):
        diff = rng.standard_normal(size).astype(np.float32)
        part_diff, step = diff.copy(), UpdateStep(0.1, iteration, decay=0.01, clip_scale=0.5, iter_size=2)
        update(rule, whole, diff, whole_history, step)
        for cut in (slice(0, 5), slice(5, 700), slice(700, size)):
            update(rule, parts[cut], part_diff[cut], [array[cut] for array in part_history], step)
    np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-7)


def test_the_order_is_clip_normalise_regularise() -> None:
    rule = rule_of("SGD")
    value, diff = np.array([2, -3, 0], np.float32), np.array([8, 4, -4], np.float32)
    first = value.copy()
    update(rule, value, diff, [np.zeros(3, np.float32)], UpdateStep(0.5, 0, decay=0.1, clip_scale=0.25, iter_size=2))
    np.testing.assert_allclose(first - value, [0.5 * (1 + 0.2), 0.5 * (0.5 - 0.3), 0.5 * -0.5], rtol=1e-6)


def test_l1_pulls_by_the_sign() -> None:
    value, diff = np.array([2, -3, 0], np.float32), np.zeros(3, np.float32)
    update(rule_of("SGD"), value, diff, [np.zeros(3, np.float32)], UpdateStep(1, 0, decay=0.25, regularization="L1"))
    np.testing.assert_array_equal(value, np.array([1.75, -2.75, 0], np.float32))


def test_clipping_looks_at_the_norm() -> None:
    squares = sum_of_squares(np.array([3, 0], np.float32)) + sum_of_squares(np.array([4], np.float32))
    assert squares == 25
    assert clip_scale(squares, 1.0) == 0.2
    assert [clip_scale(squares, limit) for limit in (5.0, 7.0, -1.0)] == [1.0, 1.0, 1.0]
    assert clip_scale(squares, 0.0) == 0


def test_an_empty_array_is_no_error() -> None:
    empty = np.zeros(0, np.float32)
    update(rule_of("Adam"), empty, empty.copy(), [empty.copy(), empty.copy()], UpdateStep(0.1, 0))


def test_the_parameter_may_change_between_steps() -> None:
    rule = rule_of("SGD")
    value, history = np.zeros(1, np.float32), [np.ones(1, np.float32)]
    rule.param.momentum = 0.5
    update(rule, value, np.zeros(1, np.float32), history, UpdateStep(0.1, 0))
    assert value == -0.5


@pytest.mark.parametrize("solver_type", ["AdaGrad", "RMSProp"])
def test_momentum_is_refused(solver_type: str) -> None:
    with pytest.raises(SolverError, match=f"Momentum cannot be used with {solver_type}. Got momentum: 0.9"):
        update_rule_class(solver_type)(SolverParameter(momentum=0.9))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_rms_decay_has_limits(decay: float) -> None:
    with pytest.raises(SolverError, match=r"rms_decay should lie between 0 and 1\. Got rms_decay: "):
        update_rule_class("RMSProp")(SolverParameter(rms_decay=decay))


def test_unknown_regularization() -> None:
    with pytest.raises(SolverError, match=r"Unknown regularization type: L3\. Expected .*'L2' or 'L1'"):
        UpdateStep(0.1, 0, decay=0.1, regularization="L3")
    UpdateStep(0.1, 0, regularization="L3")  # nobody asks, as in the original


def test_types() -> None:
    assert solver_types() == sorted(FORMULAS)
    assert [update_rule_class(name).type for name in FORMULAS] == list(FORMULAS)
    with pytest.raises(
        SolverError, match=r"Unknown solver type: Adagrad \(known types: AdaDelta, .*\)\. Did you mean 'AdaGrad'"
    ):
        update_rule_class("Adagrad")


def test_a_type_has_one_rule() -> None:
    with pytest.raises(SolverError, match=r"Solver type 'SGD' already registered, by .*sgd\.SGD"):

        @register_solver("SGD")
        class Other(UpdateRule):
            pass
