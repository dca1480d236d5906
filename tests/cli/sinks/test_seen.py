from __future__ import annotations

import tracemalloc

from pycaffe.cli._sinks import SeenPaths


def test_each_path_is_new_once() -> None:
    seen = SeenPaths()
    assert [seen.add(path) for path in ("a", "b", "a", "\udcff", "\\udcff", "b", "A")] == [
        True, True, False, True, False, False, True,
    ]  # fmt: skip
    assert len(seen) == 4


def test_a_hundred_thousand_paths_take_less_than_their_names() -> None:
    seen = SeenPaths()
    for index in range(65_536 * 4):  # so many that the buckets themselves, 7 MB, count for little
        seen.add(f"warm/{index}")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    assert all(seen.add(f"/data/photographs/2014/{index:08}.jpeg") for index in range(100_000))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 100_000 * 60
    assert len(seen) == 65_536 * 4 + 100_000
