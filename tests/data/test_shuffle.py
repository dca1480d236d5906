from __future__ import annotations

import json

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.data.shuffle import Order


def epoch(order: Order) -> list[int]:
    return [order[i] for i in range(len(order))]


def test_every_epoch_is_another_order_of_all() -> None:
    rng.seed(1)
    order = Order(9, shuffle=True)
    epochs = [epoch(order)]
    for _ in range(4):
        order.renew()
        epochs.append(epoch(order))
    assert all(sorted(one) == list(range(9)) for one in epochs)
    assert len({tuple(one) for one in epochs}) == 5
    order.renew(4)
    assert sorted(epoch(order)) == list(range(4))


def test_without_shuffle_it_is_the_given_order() -> None:
    order = Order(5, shuffle=False)
    order.renew()
    assert epoch(order) == list(range(5))
    np.testing.assert_array_equal(order.take(range(1, 5, 2)), [1, 3])


def test_a_state_brings_back_this_epoch_and_those_after_it() -> None:
    rng.seed(2)
    order = Order(9, shuffle=True)
    order.renew()
    state = json.loads(json.dumps(order.state()))
    want = [epoch(order)]
    order.renew()
    want.append(epoch(order))
    other = Order(9, shuffle=True)
    other.restore(state)
    got = [epoch(other)]
    other.renew()
    assert [*got, epoch(other)] == want
    with pytest.raises(ValueError, match="then 9 items, now 8"):
        Order(8, shuffle=True).restore(state)
