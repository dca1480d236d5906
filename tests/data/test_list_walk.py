from __future__ import annotations

import json

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.data.list_walk import ListWalk
from pycaffe.errors import LayerError


def test_the_list_comes_again_and_again() -> None:
    walk = ListWalk("abc", shuffle=False)
    assert [walk.next() for _ in range(7)] == list("abcabca")
    assert walk.peek() == walk.peek() == "b"


def test_every_epoch_is_whole_and_in_another_order() -> None:
    rng.seed(1)
    walk = ListWalk(range(9), shuffle=True)
    epochs = [tuple(walk.next() for _ in range(9)) for _ in range(4)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert len(set(epochs)) == 4


def test_a_state_brings_back_the_place() -> None:
    rng.seed(2)
    walk = ListWalk(range(5), shuffle=True)
    for _ in range(8):
        walk.next()
    state = json.loads(json.dumps(walk.state()))
    wanted = [walk.next() for _ in range(12)]
    again = ListWalk(range(5), shuffle=True)
    again.restore({**state, "generator": "of somebody else"})
    assert [again.next() for _ in range(12)] == wanted
    with pytest.raises(ValueError, match="then 5 items, now 4"):
        ListWalk(range(4), shuffle=True).restore(state)


def test_it_begins_further_on() -> None:
    walk = ListWalk(range(100), shuffle=False)
    walk.skip(100, np.random.default_rng(3))
    assert walk.next() == np.random.default_rng(3).integers(100) > 0
    with pytest.raises(LayerError, match=r"Not enough points to skip: \d+ of 1 \(rand_skip 1000000\)"):
        ListWalk("a", shuffle=False).skip(1_000_000, np.random.default_rng(3))
