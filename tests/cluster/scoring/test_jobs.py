"""`caffe classify|extract|detect --backend ray`."""

from __future__ import annotations

import pathlib
import re

import cv2
import pytest

from pycaffe.cluster.connection import Connection
from tests.cli.case import records, run, run_here, write_png
from tests.detection.tiny_detector import halves, write_tiny_detector
from tests.workers.tiny_net import write_tiny_net


@pytest.mark.slow
def test_records_are_those_of_processes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    net = write_tiny_net(tmp_path)
    (tmp_path / "images").mkdir()
    for shade in range(20):
        write_png(tmp_path / "images" / f"{shade}.png", (shade, 2 * shade, 9))
    words = ("images", "images/none.png", "--batch-size", 1, "--workers", 1)
    done = {backend: run("classify", net, *words, "--backend", backend, cwd=tmp_path) for backend in ("process", "ray")}
    assert {each.returncode for each in done.values()} == {1}, done["ray"].stderr
    here, there = (sorted(records(each.stdout), key=lambda record: record["path"]) for each in done.values())
    assert here == there
    assert len(here) == 21
    assert re.search(r"images +21\nfailures +1\n", done["ray"].stderr)


@pytest.mark.parametrize("verb", ["extract", "detect"])
def test_the_other_verbs(
    verb: str, tmp_path: pathlib.Path, local_ray: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """One image a forward: which session runs a batch of one, and so the last digit, depends on who made it."""
    if verb == "extract":
        net, words = write_tiny_net(tmp_path), ["--blobs", "score,data"]
        image = write_png(tmp_path / "a.png", (9, 2, 1))
    else:
        net, words, image = write_tiny_detector(tmp_path), [], str(tmp_path / "a.png")
        cv2.imwrite(image, halves((204, 0, 0), (0, 255, 0), 80, 240))
    out = {backend: tmp_path / f"{backend}.jsonl" for backend in ("process", "ray")}
    for backend, file in out.items():
        done = run_here(capsys, verb, net, *words, image, "--batch-size", 1, "--backend", backend, "--out", file)
        assert done.returncode == 0, done.stderr
    here, there = (records(file.read_text(encoding="utf-8")) for file in out.values())
    assert here == there
    assert here[0]["blobs" if verb == "extract" else "detections"]


def test_an_address_where_nothing_is(tmp_path: pathlib.Path) -> None:
    net, image = write_tiny_net(tmp_path), write_png(tmp_path / "a.png")
    done = run("classify", net, image, "--backend", "ray", "--address", "127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No Ray cluster at '127.0.0.1:1': " in done.stderr
    done = run("classify", net, image, "--address", "127.0.0.1:1")
    assert done.returncode == 2
    assert "--address needs --backend ray." in done.stderr
