from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pycaffe import rng


def draws(count: int) -> list[list[int]]:
    return [rng.child_generator().integers(0, 2**63, 4).tolist() for _ in range(count)]


def test_a_seed_repeats_the_sequence_of_generators() -> None:
    rng.seed(1701)
    first = draws(3)
    rng.seed(1701)
    assert draws(3) == first


def test_generators_and_seeds_differ() -> None:
    rng.seed(1)
    first = draws(20)
    rng.seed(2)
    second = draws(20)
    assert len({tuple(values) for values in first + second}) == 40


def test_what_one_generator_draws_does_not_change_the_next() -> None:
    rng.seed(5)
    rng.child_generator()
    expected = draws(1)
    rng.seed(5)
    rng.child_generator().standard_normal(1000)
    assert draws(1) == expected


def test_a_negative_seed_is_unpredictable() -> None:
    rng.seed(-1)
    first = draws(1)
    rng.seed(-1)
    assert draws(1) != first


def test_numpys_own_seed_has_no_part_in_it() -> None:
    rng.seed(5)
    expected = draws(1)
    np.random.seed(0)
    rng.seed(5)
    np.random.rand()
    assert draws(1) == expected


def test_threads_get_different_generators() -> None:
    rng.seed(3)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: tuple(draws(1)[0]), range(200)))
    assert len(set(values)) == 200
