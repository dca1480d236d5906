"""A job that is killed, with all its processes, at any moment, and goes on where it was."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import shutil
import subprocess
import time
from typing import Any

import psutil
import pytest

from tests.cli.case import records, run, run_here, start, write_images, write_png
from tests.cli.test_job import same_records


def kill_tree(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    process.communicate()


def log_of(out: pathlib.Path) -> pathlib.Path:
    return out if out.suffix in (".jsonl", ".csv") else out.with_name(f"{out.name}.partial")


def wait_for_size(path: pathlib.Path, size: int, process: subprocess.Popen[str]) -> bool:
    """Whether the file has got so large before the process ended."""
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= size:
                return True
        time.sleep(0)
    return False


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "npz"])
def test_a_kill_in_the_middle(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """Of a job that begins, and of one that was resumed."""
    images = write_images(tmp_path / "images", 300)
    (images / "empty.png").touch()
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    assert run_here(capsys, "classify", net, "--out", whole, images).returncode == 1
    for size in (1, 8001):
        process = start("classify", net, "--workers", 2, "--resume", "--out", out, images)
        assert wait_for_size(log_of(out), size, process)
        kill_tree(process)
    done = run("classify", net, "--resume", "--out", out, images)
    assert done.returncode == 1, done.stderr
    assert "there already" in done.stderr
    assert same_records(out, whole)
    assert not (tmp_path / f"{out.name}.partial").exists()


@pytest.mark.slow
def test_kills_at_twenty_random_moments_of_two_thousand_images(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    images = write_images(tmp_path / "images", 2000)
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    begin = time.monotonic()
    assert run("classify", net, "--workers", 2, "--out", whole, images).returncode == 0
    seconds = time.monotonic() - begin
    moments = random.Random(4)
    kills = complete = 0
    while kills < 20:
        process = start("classify", net, "--workers", 2, "--resume", "--out", out, images)
        try:
            process.communicate(timeout=moments.uniform(0, seconds))
        except subprocess.TimeoutExpired:
            kill_tree(process)
            kills += 1
            continue
        assert process.returncode == 0
        assert same_records(out, whole)
        out.unlink()
        complete += 1
    done = run("classify", net, "--workers", 2, "--resume", "--out", out, images)
    assert done.returncode == 0, done.stderr
    assert same_records(out, whole)
    assert len(records(out.read_text(encoding="ascii"))) == 2000


@pytest.fixture(scope="module")
def finished_once(net: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[Any]]:
    """File, and words without --out, of a job that has run."""
    folder = tmp_path_factory.mktemp("finished")
    labels, out = folder / "labels.txt", folder / "out.jsonl"
    labels.write_text("a\nb\nc\nd\ne\nf\ng\n", encoding="ascii")
    words = ["--mean", "1,2,3", "--labels", labels, write_png(folder / "a.png")]
    assert run("classify", net, "--out", out, *words).returncode == 0
    return out, words


@pytest.fixture
def finished(
    net: tuple[str, str], finished_once: tuple[pathlib.Path, list[Any]], tmp_path: pathlib.Path
) -> tuple[tuple[str, str], pathlib.Path, list[Any]]:
    """Net, file (a copy), and words of a job that has run."""
    once, words = finished_once
    out = pathlib.Path(shutil.copy(once, tmp_path))
    shutil.copy(f"{once}.job", tmp_path)
    return net, out, ["--out", out, *words]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top", "3"], "its top was 5, and is 3"),
        (["--mean", "1,2,4"], "its mean was [1.0, 2.0, 3.0], and is [1.0, 2.0, 4.0]"),
        (["--scale", "2"], "its scale was 1.0, and is 2.0"),
        (["--resize", "5", "--crop", "4"], "Input size incompatible"),
        (["--labels", "@labels"], "its labels had other contents"),
        (["--model", "@model"], "its model had other contents"),
        (["--weights", "@weights"], "its weights had other contents"),
    ],
)
def test_a_file_of_another_job_is_refused(
    finished: tuple[tuple[str, str], pathlib.Path, list[Any]],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    net, out, before = finished
    folder = out.parent
    (folder / "labels").write_text("a\nb\nc\nd\ne\nf\nG\n", encoding="ascii")
    (folder / "model").write_text(pathlib.Path(net[0]).read_text("utf-8") + "\n# changed\n", encoding="utf-8")
    weights = bytearray(pathlib.Path(net[1]).read_bytes())
    weights[len(weights) // 2] ^= 1  # of a value
    (folder / "weights").write_bytes(weights)
    words = [str(folder / word[1:]) if word.startswith("@") else word for word in words]
    records_before = out.read_bytes()
    done = run_here(capsys, "classify", net, *before, "--resume", *words)
    assert message in done.stderr
    assert done.returncode == 2
    assert out.read_bytes() == records_before


def test_workers_batches_and_tries_make_no_other_job(
    finished: tuple[tuple[str, str], pathlib.Path, list[Any]], tmp_path: pathlib.Path
) -> None:
    net, out, words = finished
    more = ["--resume", "--workers", 2, "--batch-size", 4, "--retries", 0, write_png(tmp_path / "b.png")]
    done = run("classify", net, *words, *more)
    assert done.returncode == 0, done.stderr
    assert "there already      1\nimages             1" in done.stderr
    assert len(records(out.read_text(encoding="ascii"))) == 2


def test_without_resume_a_file_with_records_is_refused(
    finished: tuple[tuple[str, str], pathlib.Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    net, out, words = finished
    before = out.read_bytes()
    done = run_here(capsys, "classify", net, *words)
    assert done.returncode == 2
    assert "holds records already. Remove it, give another --out, or go on with --resume" in done.stderr
    assert out.read_bytes() == before


@pytest.mark.parametrize("damage", [None, "", "{", '{"verb": "classify"}', "[]"])
def test_a_file_that_does_not_tell_its_job_is_refused(
    finished: tuple[tuple[str, str], pathlib.Path, list[Any]],
    capsys: pytest.CaptureFixture[str],
    damage: str | None,
) -> None:
    net, out, words = finished
    job = out.with_name("out.jsonl.job")
    assert json.loads(job.read_text(encoding="ascii"))["settings"]["top"] == 5
    job.unlink()
    if damage is not None:
        job.write_text(damage, encoding="ascii")
    done = run_here(capsys, "classify", net, *words, "--resume")
    assert done.returncode == 2
    assert "which would say of what job it is, is not there or is damaged" in done.stderr
    assert job.exists() == bool(damage)


def test_extract_does_not_go_on_with_classes(
    finished: tuple[tuple[str, str], pathlib.Path, list[Any]],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    net, out, _ = finished
    words = ["--blobs", "score", "--mean", "1,2,3", "--out", out, "--resume", tmp_path / "a.png"]
    done = run_here(capsys, "extract", net, *words)
    assert done.returncode == 2
    assert "its verb was 'classify', and is 'extract'" in done.stderr


def test_a_file_that_was_removed_begins_anew(
    finished: tuple[tuple[str, str], pathlib.Path, list[Any]],
) -> None:
    net, out, words = finished
    out.unlink()
    assert run("classify", net, *words, "--top", 2).returncode == 0
    (record,) = records(out.read_text(encoding="ascii"))
    assert len(record["top"]) == 2
    assert run("classify", net, *words, "--top", 2, "--resume").returncode == 0
