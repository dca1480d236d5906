"""A net over datasets: Parquet and folders of images in, Parquet out."""

from __future__ import annotations

import os
import pathlib
import time
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pycaffe import InputError
from pycaffe.cluster.connection import Connection
from pycaffe.cluster.scoring.datasets import map_dataset
from tests.cli.case import write_png
from tests.workers import faults
from tests.workers.tiny_net import expected_scores, write_tiny_net

MEET_SECONDS = 60.0


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


def rows_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(folder).to_pylist()
    return rows


def act_of_row(row: dict[str, Any]) -> Any:
    return faults.act({"raise": ("raise", "plain"), "os._exit": ("os._exit", 5)}.get(row["what"], row["value"]))


def meet(row: dict[str, Any]) -> Any:
    """Each actor has one process here; all of them have called this function when it returns for the first time."""
    here = pathlib.Path(row["here"])
    own = here / f"{os.getpid()}.actor"
    if not own.exists():
        own.touch()
    while len(list(here.glob("*.actor"))) < 2:
        if time.time() > own.stat().st_mtime + MEET_SECONDS:
            raise TimeoutError("nobody else came")
        time.sleep(0.05)
    return faults.filled(row["value"])


@pytest.mark.slow
def test_images_of_a_folder(local_ray: Connection, net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    for shade in range(30):
        (tmp_path / "in" / f"{shade % 3}").mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / "in" / f"{shade % 3}" / f"{shade}.png", (shade, 2 * shade, 9))
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG and no more")
    (tmp_path / "in" / "notes.txt").write_text("no image", encoding="utf-8")
    mapped = map_dataset(tmp_path / "in", *net, out=tmp_path / "out", batch_size=4, actors=(1, 2))
    assert mapped == (str(tmp_path / "out"), 31, 1)
    rows = {pathlib.Path(row["path"]).name: row for row in rows_of(tmp_path / "out")}
    assert len(rows) == 31
    assert set(rows["0.png"]) == {"path", "score", "error"}
    assert rows["bad.png"]["score"] is None
    assert rows["bad.png"]["error"].startswith("InputError: Could not decode")
    for shade in range(30):
        data = np.broadcast_to(np.array([9, 2 * shade, shade], np.float32)[:, None, None], (3, 4, 5))
        np.testing.assert_allclose(rows[f"{shade}.png"]["score"], expected_scores(net[1], net[0], data), rtol=1e-4)


@pytest.mark.slow
def test_rows_of_parquet_one_of_which_kills_its_process(
    local_ray: Connection, net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    whats = ["raise" if index == 3 else "os._exit" if index == 7 else "" for index in range(40)]
    table = pyarrow.table({"value": [float(index) for index in range(40)], "what": whats})
    (tmp_path / "in").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "in" / "a.parquet")
    mapped = map_dataset(
        tmp_path / "in", *net, out=tmp_path / "out", column=None, preprocess=act_of_row, retries=0, actors=1
    )
    assert mapped.errors == 2
    rows = {row["value"]: row for row in rows_of(tmp_path / "out")}
    assert rows[3]["error"] == "ValueError: no good"
    assert rows[7]["error"].startswith("WorkerDied: ")
    for index in set(range(40)) - {3, 7}:
        expected = expected_scores(net[1], net[0], faults.filled(index))
        np.testing.assert_allclose(rows[index]["score"], expected, rtol=1e-4, atol=1e-4)
        assert rows[index]["error"] is None


@pytest.mark.slow
def test_actors_become_more_where_there_is_work(
    local_ray: Connection, net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    """The pool begins with one. The rows of one file wait for as many actors at work as there may be."""
    (tmp_path / "in").mkdir()
    table = pyarrow.table({"value": [float(index) for index in range(96)], "here": [str(tmp_path)] * 96})
    pyarrow.parquet.write_table(table, tmp_path / "in" / "a.parquet")
    mapped = map_dataset(
        tmp_path / "in", *net, out=tmp_path / "out", column=None, preprocess=meet, batch_size=1, actors=(1, 2)
    )
    assert (mapped.rows, mapped.errors) == (96, 0)
    assert len(list(tmp_path.glob("*.actor"))) == 2
    assert len(list((tmp_path / "out").glob("*.parquet"))) <= 6, "no file for each block of two rows"


def make(row: dict[str, Any]) -> dict[str, Any]:
    """A row of 1 MB, which leaves a mark."""
    pathlib.Path(row["here"], f"{row['id']}.made").touch()
    return {"id": row["id"], "here": row["here"], "large": np.zeros(250_000, np.float32)}


def score(row: dict[str, Any]) -> Any:
    """How many rows are made and not scored yet, while scoring takes longer than making."""
    here = pathlib.Path(row["here"])
    time.sleep(0.02)
    (here / f"{row['id']}.scored").touch()
    return faults.filled(len(list(here.glob("*.made"))) - len(list(here.glob("*.scored"))))


@pytest.mark.slow
def test_what_is_read_ahead_has_a_bound(local_ray: Connection, net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    """Of large rows, of which Ray Data may have 128 MB under way: whoever makes them waits for the net."""
    import ray.data

    options = ray.data.DataContext.get_current().execution_options
    before, options.resource_limits = options.resource_limits, ray.data.ExecutionResources(object_store_memory=128e6)
    try:
        rows = ray.data.from_items([{"id": number, "here": str(tmp_path)} for number in range(200)])
        map_dataset(
            rows.repartition(50).map(make), *net, out=tmp_path / "out", column=None, preprocess=score,
            outputs=["data"], batch_size=8, actors=1,
        )  # fmt: skip
    finally:
        options.resource_limits = before
    ahead = [row["data"][0] for row in pyarrow.parquet.read_table(tmp_path / "out", columns=["data"]).to_pylist()]
    assert len(ahead) == 200
    assert max(ahead) < 140, "a row is 1 MB"


def test_what_makes_no_sense(local_ray: Connection, net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "full").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), tmp_path / "full" / "a.parquet")
    out = tmp_path / "out"
    for dataset, arguments, text in (
        (tmp_path / "none", {"out": out}, "Could not open or find '.*none', a dataset"),
        (tmp_path / "full", {"out": tmp_path / "full"}, "full' is there already"),
        (tmp_path / "full", {"out": out}, r"no column 'bytes'. It has \['x'\]"),
        (tmp_path / "full", {"out": out, "outputs": ["prob"]}, "Unknown blob name 'prob'"),
        (tmp_path / "full", {"out": out, "actors": (3, 2)}, r"Got \(3, 2\)"),
    ):
        with pytest.raises(InputError, match=text):
            map_dataset(dataset, *net, **arguments)
    assert not out.exists()
