from __future__ import annotations

import pathlib

import bench_prefetch
import pytest


def test_a_step_holds_its_wait(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_prefetch, "DIGITS", 130)
    reader = bench_prefetch.digits(tmp_path)
    step, waits = bench_prefetch.run(str(tmp_path), "lenet", lambda n, batch: reader(n, batch, 0), 2)
    assert 0 < waits < step


def test_photographs_come_through_their_reader(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_prefetch, "PHOTOGRAPHS", 3)
    reader = bench_prefetch.photographs(tmp_path)
    monkeypatch.setitem(
        bench_prefetch.CASES, "caffenet", (lambda n: bench_prefetch.L.InnerProduct(n.data, num_output=2), 2)
    )
    net = bench_prefetch.make_solver(str(tmp_path), "caffenet", lambda n, batch: reader(n, batch, 1)).net
    net.forward(end="data")
    assert net.blobs["data"].shape == (2, 3, 227, 227)
    assert net.blobs["data"].data.std() > 20
