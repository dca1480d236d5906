"""What an item may do to its worker, and where: {raise, sys.exit, os._exit, segfault} × five places on its way."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from pycaffe import Pool, PoolError, WorkerDied
from tests.workers import faulty_layer

RETRIES = 1
EXPECTED = {
    "raise": (ValueError, "no good", 1),
    "sys.exit": (PoolError, "SystemExit: 3", 1),
    "os._exit": (WorkerDied, "died with exit status 5 while running this item alone", RETRIES + 1),
    "segfault": (WorkerDied, "died with SIGSEGV while running this item alone", RETRIES + 1),
}


@pytest.fixture(scope="module", params=[1, 4])
def pool(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """One pool for the whole table: it has to survive all of it."""
    model = faulty_layer.write_model(pathlib.Path(tmp_path_factory.mktemp("net")))
    with Pool(
        model,
        workers=2,
        batch_size=request.param,
        retries=RETRIES,
        preprocess=faulty_layer.preprocess,
        postprocess=faulty_layer.postprocess,
    ) as made:
        yield made


@pytest.mark.parametrize("where", faulty_layer.WHERES)
@pytest.mark.parametrize("what", list(faulty_layer.WHATS))
def test_it_is_the_items_error_and_its_neighbours_do_not_pay(pool: Pool, where: str, what: str) -> None:
    kind, text, attempts = EXPECTED[what]
    guilty = faulty_layer.item(where, what)
    results = pool.map([guilty if index == 5 else float(index) for index in range(12)])
    assert [result.index for result in results] == list(range(12))
    assert type(results[5].error) is kind, results[5].error
    assert text in str(results[5].error)
    assert (results[5].attempts, results[5].outputs, results[5].item) == (attempts, None, guilty)
    innocent = results[:5] + results[6:]
    assert [(result.outputs, result.error, result.attempts) for result in innocent] == [
        (float(result.index), None, 1) for result in innocent
    ]
