"""Shard servers: Caffe's solvers on pieces, who waits for whom, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pycaffe.cluster.protocol.compression import parse_compression
from pycaffe.cluster.protocol.messages import Counted, Sender, Stale
from pycaffe.cluster.protocol.shards import ParameterInfo
from pycaffe.errors import SolverError
from pycaffe.proto.schema import SolverParameter
from pycaffe.solvers.learning_rate import LearningRate
from pycaffe.solvers.update_rules import UpdateStep, clip_scale, sum_of_squares, update, update_rule_class
from tests.cluster.protocol.server_group import ServerGroup

TYPES = ["AdaDelta", "AdaGrad", "Adam", "Nesterov", "RMSProp", "SGD"]
SIZES = (9000, 20, 7)
INFOS = [
    ParameterInfo("ip1[0]", 9000, lr_mult=1, decay_mult=1),
    ParameterInfo("ip1[1]", 20, lr_mult=2, decay_mult=0),
    ParameterInfo("ip2[0]", 7, lr_mult=0.5, decay_mult=3),
]


def solver(solver_type: str = "SGD", **fields: Any) -> Any:
    momentum = 0.0 if solver_type in ("AdaGrad", "RMSProp") else 0.9
    defaults = {
        "base_lr": 0.05, "lr_policy": "multistep", "gamma": 0.5, "stepvalue": [5, 12], "momentum": momentum,
        "momentum2": 0.95, "delta": 1e-4, "rms_decay": 0.9, "weight_decay": 0.01, "max_iter": 1000,
    }  # fmt: skip
    return SolverParameter(type=solver_type, **{**defaults, **fields})


def numbers(*key: int, sizes: tuple[int, ...] = SIZES) -> list[np.ndarray]:
    rng = np.random.default_rng(key)
    return [rng.standard_normal(size).astype(np.float32) for size in sizes]


class OneProcess:
    """A solver's arithmetic on whole parameters."""

    def __init__(self, param: Any, values: list[np.ndarray], infos: list[ParameterInfo] = INFOS) -> None:
        self.param, self.infos = param, infos
        self.rule, self.rates = update_rule_class(param.type)(param), LearningRate(param)
        self.values = [value.copy() for value in values]
        self.histories = [[np.zeros_like(value) for value in values] for _ in range(self.rule.num_histories)]
        self.iteration = 0

    def step(self, gradients: list[np.ndarray]) -> None:
        rate = self.rates.at(self.iteration, 0.0)
        scale = clip_scale(sum(sum_of_squares(gradient) for gradient in gradients), self.param.clip_gradients)
        for index, (info, value, gradient) in enumerate(zip(self.infos, self.values, gradients)):
            step = UpdateStep(
                rate * info.lr_mult, self.iteration, self.param.weight_decay * info.decay_mult,
                self.param.regularization_type, scale, self.param.iter_size,
            )  # fmt: skip
            update(self.rule, value, gradient.copy(), [history[index] for history in self.histories], step)
        self.iteration += 1


def mean(gradients: list[list[np.ndarray]]) -> list[np.ndarray]:
    """In the order of ranks, as gradients of several GPUs are averaged."""
    return [np.sum(of_one, axis=0, dtype=np.float32) * np.float32(1 / len(of_one)) for of_one in zip(*gradients)]


def assert_close(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    for our, their in zip(ours, theirs):
        np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-6)


def values_of(pulled: Any) -> list[np.ndarray]:
    assert isinstance(pulled, list)
    return pulled


# -- sync


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("solver_type", TYPES)
def test_sync_is_one_process_on_the_joined_batch(solver_type: str, workers: int) -> None:
    param, values = solver(solver_type, regularization_type="L1" if workers == 2 else "L2"), numbers(0)
    group = ServerGroup(param, values, workers=workers, infos=INFOS)
    one = OneProcess(param, values)
    rng = np.random.default_rng(5)
    for clock in range(20):
        pulled = [values_of(group.pull(rank, clock)) for rank in range(workers)]
        for of_rank in pulled:
            assert_close(of_rank, one.values)
        gradients = [numbers(clock, rank) for rank in range(workers)]
        for rank in rng.permutation(workers):
            assert group.push(int(rank), clock, gradients[rank]) == [Counted(), Counted()]
        one.step(mean(gradients))
    assert_close(values_of(group.pull(0, 20)), one.values)


@pytest.mark.parametrize("workers", [1, 3])
def test_sync_clips_by_the_norm_of_the_whole_gradient(workers: int) -> None:
    param, values = solver(clip_gradients=30.0), numbers(0)
    group, one = ServerGroup(param, values, workers=workers, servers=3, infos=INFOS), OneProcess(param, values)
    for clock in range(5):
        gradients = [numbers(clock, rank) for rank in range(workers)]
        if clock == 3:
            gradients = [[gradient / 100 for gradient in of_rank] for of_rank in gradients]  # below the limit
        for rank in range(workers):
            group.push(rank, clock, gradients[rank])
        one.step(mean(gradients))
    assert_close(values_of(group.pull(0, 5)), one.values)


def test_with_clipping_nothing_moves_before_all_servers_know_the_norm() -> None:
    group = ServerGroup(solver(clip_gradients=1.0), numbers(0), workers=1, infos=INFOS)
    group.push(0, 0, numbers(1), only=0)
    assert group.pull(0, 1) is None
    group.push(0, 0, numbers(1), only=1)
    assert isinstance(group.pulled(0, 1), list)
    (again,) = group.servers[0].repeat()
    group.servers[1].add_squares(again.squares)  # a repeat changes nothing
    assert group.pull(0, 2) is None


def test_the_order_of_arrival_does_not_show() -> None:
    results = []
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        group = ServerGroup(solver(), numbers(0), workers=3, infos=INFOS)
        for rank in order:
            group.push(rank, 0, numbers(1, rank))
        results.append(values_of(group.pull(0, 1)))
    for result in results[1:]:
        for first, other in zip(results[0], result):
            np.testing.assert_array_equal(first, other)


def test_sync_waits_for_everybody_and_keeps_the_version_before() -> None:
    values = numbers(0)
    group = ServerGroup(solver(), values, infos=INFOS)
    group.push(0, 0, numbers(1))
    assert group.pull(0, 1) is None
    group.push(1, 0, numbers(2), only=0)
    assert group.pulled(0, 1) is None
    before = values_of(group.pull(1, 0))  # server 0 is a version ahead of server 1, and of rank 1
    for value, pulled in zip(values, before):
        np.testing.assert_array_equal(value, pulled)
    group.push(1, 0, numbers(2), only=1)
    assert isinstance(group.pulled(0, 1), list)


def test_arrays_that_went_out_stay_as_they_are() -> None:
    for mode in ("sync", "async"):
        group = ServerGroup(solver(), numbers(0), mode=mode, workers=1, servers=1, infos=INFOS)
        group.pull(0, 0)
        sent = [dense.values for dense in group.answers[0, 0, 0].values]
        kept = [array.copy() for array in sent]
        for clock in range(2):
            group.push(0, clock, numbers(1))
        for array, before in zip(sent, kept):
            np.testing.assert_array_equal(array, before)


def test_a_policy_that_counts_is_asked_once_an_iteration() -> None:
    """Policy multistep moves on by one with each question: pieces at different iterations must not push it."""
    param, values = solver(stepvalue=[1, 2]), numbers(0)
    group, one = ServerGroup(param, values, workers=1, infos=INFOS), OneProcess(param, values)
    for clock in range(4):
        group.push(0, clock, numbers(clock))
        one.step(numbers(clock))
    assert_close(values_of(group.pull(0, 4)), one.values)


def test_plateau_sees_the_mean_of_all_workers_losses() -> None:
    param = solver(lr_policy="plateau", plateau_winsize=[2], momentum=0.0, weight_decay=0.0, gamma=0.1, base_lr=1.0)
    group = ServerGroup(param, [np.zeros(2, np.float32)], servers=1)
    steps = []
    for clock in range(5):
        before = values_of(group.pull(0, clock))[0]
        group.push(0, clock, [np.ones(2, np.float32)], loss=3.0)
        group.push(1, clock, [np.ones(2, np.float32)], loss=math.nan if clock == 2 else 1.0)
        steps.append(float(before[0] - values_of(group.pull(0, clock + 1))[0][0]))
    np.testing.assert_allclose(steps, [1, 1, 0.1, 0.1, 0.1], rtol=1e-5)


# -- ssp and async


def test_ssp_lets_the_fastest_be_ahead_by_the_staleness() -> None:
    group = ServerGroup(solver(), numbers(0), mode="ssp 2", workers=3, infos=INFOS)
    for clock in range(2):
        group.push(0, clock, numbers(clock))
    assert isinstance(group.pull(0, 2), list)
    group.push(0, 2, numbers(2))
    assert group.pull(0, 3) is None
    group.push(1, 0, numbers(3))
    assert group.pulled(0, 3) is None
    group.push(2, 0, numbers(4), only=1)
    assert group.pulled(0, 3) is None
    group.push(2, 0, numbers(4), only=0)
    assert isinstance(group.pulled(0, 3), list)


@pytest.mark.parametrize("mode", ["async", "ssp 3"])
@pytest.mark.parametrize("solver_type", TYPES)
def test_each_push_is_an_update_with_the_rate_shared(solver_type: str, mode: str) -> None:
    param, values = solver(solver_type, stepvalue=[2], clip_gradients=20.0), numbers(0)
    group, rule = ServerGroup(param, values, mode=mode, infos=INFOS), update_rule_class(solver_type)(param)
    expected = [value.copy() for value in values]
    histories = [[np.zeros_like(value) for _ in range(rule.num_histories)] for value in values]
    for count, rank in enumerate([0, 1, 1, 0, 0, 1]):
        gradients = numbers(count)
        squares = sum(sum_of_squares(gradient) for gradient in gradients)
        clock = [0, 0, 1, 1, 2, 2][count]
        group.push(rank, clock, gradients, squares=squares)
        rate = param.base_lr * (0.5 if count // 2 >= 2 else 1) / 2
        scale = clip_scale(squares, param.clip_gradients)
        for info, value, gradient, history in zip(INFOS, expected, gradients, histories):
            step = UpdateStep(rate * info.lr_mult, count, param.weight_decay * info.decay_mult, clip_scale=scale)
            update(rule, value, gradient, history, step)
    assert_close(values_of(group.pull(0, 3)), expected)


def test_w_pushes_of_one_gradient_move_as_far_as_one_step() -> None:
    param, values = solver(momentum=0.0, weight_decay=0.0), numbers(0)
    group, one = ServerGroup(param, values, mode="async", workers=4, infos=INFOS), OneProcess(param, values)
    for rank in range(4):
        group.push(rank, 0, numbers(1))
    one.step(numbers(1))
    assert_close(values_of(group.pull(0, 1)), one.values)


def test_async_waits_for_nobody_and_goes_on_after_the_last_iteration() -> None:
    param = solver(lr_policy="poly", power=0.5, max_iter=3)
    group = ServerGroup(param, numbers(0), mode="async", infos=INFOS)
    for clock in range(9):
        assert isinstance(group.pull(0, clock), list)
        assert group.push(0, clock, numbers(clock)) == [Counted(), Counted()]
    assert isinstance(group.pull(1, 0), list)


def test_a_push_that_overtakes_waits_for_the_one_before() -> None:
    results = []
    for order in ([0, 1], [1, 0]):
        group = ServerGroup(solver(), numbers(0), mode="async", infos=INFOS)
        for clock in order:
            group.push(0, clock, numbers(clock))
        results.append(values_of(group.pull(0, 2)))
    for first, second in zip(*results):
        np.testing.assert_array_equal(first, second)


# -- what is refused


@pytest.mark.parametrize("mode", ["sync", "ssp 1", "async"])
def test_a_duplicate_is_counted_once(mode: str) -> None:
    results = []
    for times in (1, 3):
        group = ServerGroup(solver(), numbers(0), mode=mode, infos=INFOS)
        for clock in range(2):
            for rank in range(2):
                for _ in range(times):
                    group.push(rank, clock, numbers(clock, rank))
            if times > 1:
                group.push(0, 0, numbers(9))
        results.append(values_of(group.pull(0, 2)))
    for first, second in zip(*results):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("sender", [Sender(0, 0, 10), Sender(2, 0, 10), Sender(1, 0, 9), Sender(1, 0, 11)], ids=str)
def test_strangers_change_nothing(mode: str, sender: Sender) -> None:
    group = ServerGroup(solver(), numbers(0), mode=mode, workers=1, infos=INFOS)
    before = values_of(group.pull(0, 0))
    assert group.push(0, 0, numbers(1), sender=sender) == [Stale(1), Stale(1)]
    assert group.pull(0, 7, sender) == Stale(1)
    for value, now in zip(before, values_of(group.pull(0, 0))):
        np.testing.assert_array_equal(value, now)
    assert group.push(0, 0, numbers(1)) == [Counted(), Counted()], "and its own push is still new"


def test_before_the_first_generation_everything_is_stale() -> None:
    group = ServerGroup(solver(), numbers(0), infos=INFOS)
    server = type(group.servers[0])(group.servers[0].config)
    group.servers[0] = server
    assert group.push(0, 0, numbers(1), only=0) == [Stale(0)]
    assert (server.fence(1, 0, 11), server.freeze(1, 1)) == (None, None)


def test_a_fenced_worker_is_heard_no_more_and_its_successor_goes_on_where_all_pieces_can() -> None:
    group = ServerGroup(solver(), numbers(0), infos=INFOS)
    for rank in range(2):
        group.push(rank, 0, numbers(rank))
    group.push(0, 1, numbers(2), only=1)
    assert group.pull(0, 2) is None
    assert [server.fence(1, 0, 20) for server in group.servers] == [1, 2]
    group.obey()
    assert group.pulled(0, 2) == Stale(1), "the dead one's pulls end"
    assert group.push(0, 1, numbers(2)) == [Stale(1), Stale(1)]
    assert group.servers[0].fence(1, 0, 15) is None, "an order that was late"
    successor = Sender(1, 0, 20)
    assert isinstance(group.pull(0, 1, successor), list)
    assert group.push(0, 1, numbers(2), sender=successor) == [Counted(), Counted()]
    group.push(1, 1, numbers(3))
    undisturbed = ServerGroup(solver(), numbers(0), infos=INFOS)
    for clock in range(2):
        for rank in range(2):
            undisturbed.push(rank, clock, numbers(clock * 2 + rank))
    for value, expected in zip(values_of(group.pull(1, 2)), values_of(undisturbed.pull(1, 2))):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("compression", [None, "fp16", "topk:0.5"])
def test_a_gradient_that_is_not_finite_is_refused_and_counted(bad: float, compression: str | None) -> None:
    param, values = solver(momentum=0.0, weight_decay=0.0, base_lr=1.0), [np.zeros(4, np.float32)]
    group = ServerGroup(param, values, workers=3, servers=1, compression=parse_compression(compression))
    group.push(0, 0, [np.full(4, 1, np.float32)])
    poisoned = np.full(4, 2, np.float32)
    poisoned[1] = bad
    assert group.push(1, 0, [poisoned]) == [Counted((0,))]
    group.push(2, 0, [np.full(4, 3, np.float32)])
    (now,) = values_of(group.pull(0, 1))
    if compression != "topk:0.5":
        np.testing.assert_allclose(now, np.full(4, -2.0), rtol=1e-6)  # the mean of the two that are left
    assert np.isfinite(now).all()
    assert group.servers[0].refused == {1: 1}


def test_a_step_that_all_workers_lose_changes_nothing_but_the_clock() -> None:
    values = numbers(0)
    group = ServerGroup(solver(clip_gradients=1.0), values, infos=INFOS)
    for rank in range(2):
        group.push(rank, 0, [np.full(size, math.nan, np.float32) for size in SIZES])
    for value, now in zip(values, values_of(group.pull(0, 1))):
        np.testing.assert_array_equal(value, now)
    large = [np.full(size, 1e30, np.float32) for size in SIZES]  # finite, though its squares are not
    assert group.push(0, 1, large) == [Counted(), Counted()]


def test_async_refuses_too() -> None:
    values = numbers(0)
    group = ServerGroup(solver(), values, mode="async", servers=1, infos=INFOS)
    bad = numbers(1)
    bad[1][3] = math.nan
    (answer,) = group.push(0, 0, bad, squares=math.nan)
    assert isinstance(answer, Counted)
    assert len(answer.refused) == 1
    now = values_of(group.pull(0, 1))
    np.testing.assert_array_equal(now[1], values[1])
    assert not np.array_equal(now[2], values[2])


def test_async_refuses_the_whole_of_a_gradient_that_it_cannot_clip() -> None:
    values = numbers(0)
    group = ServerGroup(solver(clip_gradients=1.0), values, mode="async", servers=1, infos=INFOS)
    bad = numbers(1)
    bad[1][3] = math.nan
    (answer,) = group.push(0, 0, bad, squares=math.nan)
    assert isinstance(answer, Counted)
    assert len(answer.refused) == len(values)
    for value, now in zip(values, values_of(group.pull(0, 1))):
        np.testing.assert_array_equal(value, now)


@pytest.mark.parametrize("clip", [-1.0, 1.0])
@pytest.mark.parametrize("mode", ["ssp 2", "async"])
def test_what_a_cut_holds_back_and_is_refused_later_is_told_at_once(mode: str, clip: float) -> None:
    values = numbers(0)
    group = ServerGroup(solver(clip_gradients=clip), values, mode=mode, servers=1, infos=INFOS)
    (server,) = group.servers
    assert server.freeze(1, cut=1) == (0, 0)
    bad = numbers(1)
    bad[1][3] = math.nan
    whole = Counted(tuple(piece.index for piece in group.pieces))
    told = whole if clip > 0 else Counted((1,))
    assert group.push(0, 0, bad, squares=math.nan) == [told]
    assert (server.refused, values_of(group.pull(1, 0))[2].tolist()) == ({}, values[2].tolist()), "it waits"
    server.cut(1, 1, (0, 0))
    group.obey()
    assert server.refused == {0: len(told.refused)}
    np.testing.assert_array_equal(values_of(group.pull(1, 0))[1], values[1])


def test_none_is_a_gradient_of_zeros() -> None:
    results = []
    for nothing in (None, np.zeros(20, np.float32)):
        group = ServerGroup(solver(), numbers(0), infos=INFOS)
        for rank in range(2):
            first, _, third = numbers(rank)
            group.push(rank, 0, [first, nothing, third])
        results.append(values_of(group.pull(0, 1)))
    for first, second in zip(*results):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_forward_changes_is_kept_from_rank_0(mode: str) -> None:
    infos = [ParameterInfo("conv[0]", 3), ParameterInfo("bn[0]", 2, lr_mult=0, kept=True)]
    values = [np.zeros(3, np.float32), np.zeros(2, np.float32)]
    group = ServerGroup(
        solver(clip_gradients=1.0), values, mode=mode, infos=infos, servers=1, compression=parse_compression("fp16")
    )
    statistics = np.array([1e5, 3], np.float32)  # beyond float16
    group.push(1, 0, [np.ones(3, np.float32), np.array([9, 9], np.float32)], squares=3.0)
    group.push(0, 0, [np.ones(3, np.float32), statistics], squares=3.0)
    np.testing.assert_array_equal(values_of(group.pull(1, 1))[1], statistics)


def test_unknown_types_and_rules_are_refused_at_once() -> None:
    with pytest.raises(SolverError, match="Unknown solver type: Sgd"):
        ServerGroup(SolverParameter(type="Sgd"), numbers(0))


# -- bytes


@pytest.mark.parametrize(
    ("compression", "pushed", "pulled"), [(None, 1.0, 1.0), ("fp16", 0.5, 0.5), ("topk:0.01", 0.03, 1.0)]
)
def test_bytes_of_a_step(compression: str | None, pushed: float, pulled: float) -> None:
    sizes = (100_000, 5_000, 500, 50)
    group = ServerGroup(
        solver(), numbers(0, sizes=sizes), workers=1, servers=3, compression=parse_compression(compression)
    )
    group.pull(0, 0)
    group.push(0, 0, numbers(1, sizes=sizes))
    parameters = 4 * sum(sizes)
    assert group.bytes_pushed <= pushed * parameters
    assert group.bytes_pulled == pulled * parameters
