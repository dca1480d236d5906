from __future__ import annotations

from collections.abc import Callable

import pytest

from pycaffe.workers.batch_size import ACTIVATIONS, LARGEST, TRIALS, choose_batch_size


def settle(forward: Callable[[int], float], activations: int = 0, largest: int = LARGEST) -> tuple[int, list[int]]:
    """The size that is chosen where a forward of n items takes `forward(n)` seconds, and the sizes that were tried."""
    seconds: dict[int, list[float]] = {}
    while True:
        size, settled = choose_batch_size(seconds, activations, largest)
        if settled:
            return size, list(seconds)
        seconds.setdefault(size, []).append(forward(size))


@pytest.mark.parametrize(
    ("forward", "size"),
    [
        (lambda n: 0.030 * n, 1),  # nothing is gained by batches
        (lambda n: 0.001 * n, 32),  # what a batch costs the pool counts, too
        (lambda n: 0.024 if n == 1 else 0.012 * n, 2),  # CaffeNet's way: fully connected layers read weights once
        (lambda n: 0.010 + 0.002 * n, LARGEST),
        (lambda n: 0.0015 * n if n <= 8 else 0.004 * n, 8),
        (lambda n: 0.010 + 0.002 * min(n, 8) + (0.02 * (n - 8) if n > 8 else 0), 8),
    ],
)
def test_the_size_where_an_item_costs_least(forward: Callable[[int], float], size: int) -> None:
    assert settle(forward)[0] == size


def test_sizes_are_tried_upwards_until_two_do_not_pay() -> None:
    assert settle(lambda n: 0.010 + (0.001 if n <= 4 else 0.1))[1] == [1, 2, 4, 8, 16]


def test_memory_of_activations_bounds_the_size() -> None:
    def pays(n: int) -> float:
        return 0.1

    assert settle(pays, activations=ACTIVATIONS // 5)[0] == 4
    assert settle(pays, activations=2 * ACTIVATIONS)[0] == 1


def test_a_net_that_takes_no_batches_runs_items_alone() -> None:
    assert settle(lambda n: 0.1, largest=1) == (1, [1])


def test_of_the_trials_of_a_size_the_fastest_counts() -> None:
    seconds = {1: [0.01] * TRIALS, 2: [9.0, 0.005, 0.03, 0.04]}
    assert choose_batch_size(seconds, 0) == (4, False)
