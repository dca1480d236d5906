"""What can happen to a job on its way: signals, full disks, readers that go, options that change what a failure is."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
from typing import Any

import numpy as np
import pytest

from pycaffe import TEST, Net, cli, devices
from pycaffe.cli import _job
from tests.cli.case import command, records, run, run_here, start, write_images, write_png


class Held:
    """A job of 200 images whose first one, a pipe, does not come before `release`: it is at work, and stays so."""

    def __init__(self, net: tuple[str, str], folder: pathlib.Path) -> None:
        self.net = net
        self.out = folder / "out.jsonl"
        self.never = folder / "never.png"
        self.words = ["--out", self.out, self.never, write_images(folder / "images", 200)]
        os.mkfifo(self.never)
        self.process = start("classify", net, *self.words)
        self._writer = open(self.never, "wb")  # noqa: SIM115 (opens when the worker has got there)

    def signal(self, number: int, group: bool = False) -> None:
        """Sends a signal, and waits until it is heard."""
        assert self.process.stderr is not None
        (os.killpg if group else os.kill)(self.process.pid, number)
        for line in self.process.stderr:
            if line.startswith("Stopping after the images that are at work"):
                return
        pytest.fail("no word of the signal")

    def release(self) -> None:
        self._writer.close()

    def end(self) -> int:
        """Exit status."""
        status = self.process.wait(timeout=60)
        assert self.process.stderr is not None
        assert "Traceback" not in self.process.stderr.read()
        self.process.communicate()
        return status

    def records(self) -> list[dict[str, Any]]:
        return records(self.out.read_text(encoding="ascii"))

    def resume(self) -> None:
        self.never.unlink()
        write_png(self.never)
        done = run("classify", self.net, "--resume", *self.words)
        assert done.returncode == 0, done.stderr
        paths = [record["path"] for record in self.records()]
        assert len(paths) == len(set(paths)) == 201
        assert not any("error" in record for record in self.records())


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [(signal.SIGINT, True, 130), (signal.SIGTERM, False, 143), (signal.SIGTERM, True, 143)],
)
def test_a_signal_lets_finish_what_is_at_work(
    net: tuple[str, str], tmp_path: pathlib.Path, number: int, group: bool, status: int
) -> None:
    """SIGINT goes to the whole group, as from a terminal; SIGTERM to one process, or to all as from systemd."""
    job = Held(net, tmp_path)
    job.signal(number, group)
    job.release()
    assert job.end() == status
    written = {record["path"]: record for record in job.records()}
    assert "it is empty" in written[str(job.never)]["error"]
    assert len(written) < 200, "images that nobody had begun with are left"
    job.resume()


def test_a_list_is_at_work_before_its_end_is_known(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    paths = tmp_path / "list"
    os.mkfifo(paths)
    images = write_images(tmp_path / "images", 300)
    running = start("classify", net, f"@{paths}")
    assert running.stdout is not None
    with open(paths, "w", encoding="ascii") as file:
        file.write("".join(f"{images}/{index}.png\n" for index in range(200)))
        file.flush()
        early = [json.loads(running.stdout.readline()) for _ in range(50)]
        file.write("".join(f"{images}/{index}.png\n" for index in range(200, 300)))
    rest = running.stdout.read()  # `communicate` would not see what readline has read ahead
    running.communicate(timeout=60)
    assert running.returncode == 0
    assert len({record["path"] for record in [*early, *records(rest)]}) == 300


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_at_once(net: tuple[str, str], tmp_path: pathlib.Path, second: int) -> None:
    job = Held(net, tmp_path)
    job.signal(signal.SIGINT)
    os.kill(job.process.pid, second)
    assert job.end() == 130
    assert str(job.never) not in [record["path"] for record in job.records()]
    job.release()
    job.resume()


def test_two_processes_at_one_file(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    job = Held(net, tmp_path)
    done = run("classify", net, "--resume", *job.words)
    assert done.returncode == 2
    assert f"Another process is writing {str(job.out)!r}" in done.stderr
    job.signal(signal.SIGINT)
    job.release()
    assert job.end() == 130
    job.resume()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A net without parameters: a session writes those to a file, and the limit is about that, too."""
    folder = tmp_path_factory.mktemp("small")
    model, weights = folder / "small.prototxt", folder / "small.caffemodel"
    model.write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 4 dim: 5 } } }'
        'layer { name: "score" type: "Pooling" bottom: "data" top: "score"'
        " pooling_param { pool: AVE global_pooling: true } }",
        encoding="utf-8",
    )
    Net(str(model), TEST).save(str(weights))
    return str(model), str(weights)


def limited(size: int) -> Any:
    """For a child: files may grow so far. EFBIG comes as ENOSPC does, after a part of a record."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "npz", "parquet"])
def test_a_full_disk_leaves_a_file_that_resumes(
    small: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    images, out = write_images(tmp_path / "images", 20), tmp_path / f"out.{suffix}"
    full = run("classify", small, "--out", out, images, preexec_fn=limited(1500))
    assert full.returncode == 1
    assert f"File too large: {str(out)!r}" in full.stderr.replace(".partial", "")
    assert "Traceback" not in full.stderr
    if suffix == "jsonl":
        assert 0 < len(records(out.read_text(encoding="ascii"))) < 20
    else:
        assert not out.exists() or suffix == "csv"
    done = run_here(capsys, "classify", small, "--resume", "--out", out, images)
    assert done.returncode == 0, done.stderr
    assert "there already" in done.stderr
    whole = tmp_path / f"whole.{suffix}"
    assert run_here(capsys, "classify", small, "--out", whole, images).returncode == 0
    assert same_records(out, whole)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_a_disk_that_is_full_at_the_very_end(
    small: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    """The journal fits and what is made of it does not: nothing is lost, and nothing half is there."""
    images, out = write_images(tmp_path / "images", 3), tmp_path / f"out.{suffix}"
    full = run("extract", small, "--blobs", "score", "--out", out, images, preexec_fn=limited(600))
    assert full.returncode == 1, full.stderr
    assert "File too large" in full.stderr
    assert "Traceback" not in full.stderr
    assert sorted(os.listdir(tmp_path)) == ["images", f"{out.name}.job", f"{out.name}.partial"]
    done = run_here(capsys, "extract", small, "--blobs", "score", "--out", out, "--resume", images)
    assert done.returncode == 0
    assert "there already      3\nimages             0" in done.stderr
    assert out.exists()


def test_a_stream_that_takes_no_more(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    done = run("classify", net, "--out", "/dev/full", write_png(tmp_path / "a.png"))
    assert done.returncode == 1
    assert "No space left on device: '/dev/full'" in done.stderr
    assert not os.path.exists("/dev/full.job")


@pytest.mark.parametrize("format", ["jsonl", "npz"])
def test_standard_output_that_is_closed(net: tuple[str, str], tmp_path: pathlib.Path, format: str) -> None:
    running = start("classify", net, "--format", format, write_images(tmp_path / "images", 3))
    assert running.stdout is not None
    running.stdout.close()
    assert running.stderr is not None
    assert "Traceback" not in running.stderr.read()
    assert running.wait(timeout=60) == 1


def test_archives_go_to_standard_output_too(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    images = write_images(tmp_path / "images", 3)
    with open(tmp_path / "piped.npz", "wb") as file:
        done = subprocess.run(
            command("classify", net, "--format", "npz", images), stdout=file, stderr=subprocess.PIPE, timeout=100
        )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "piped.npz") as arrays:
        assert arrays["score"].shape == (3, 5)
    with open(tmp_path / "piped.npz", "rb") as file:
        assert file.read(4) == b"PK\x03\x04"


def test_what_a_failure_is(net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = [write_png(tmp_path / f"{index}.png") for index in range(40)]
    words = [tmp_path / "missing.png", *images]
    for on_error, whole in (("record", True), ("skip", True), ("stop", False)):
        out = tmp_path / f"{on_error}.jsonl"
        done = run_here(capsys, "classify", net, "--on-error", on_error, "--out", out, *words)
        assert done.returncode == 1, done.stderr
        written = {record["path"]: record for record in records(out.read_text(encoding="ascii"))}
        assert (str(tmp_path / "missing.png") in written) == (on_error != "skip")
        assert ({*images} <= {*written}) == whole
        assert "failures           1" in done.stderr
    write_png(tmp_path / "missing.png")
    done = run_here(capsys, "classify", net, "--resume", "--out", tmp_path / "stop.jsonl", *words)
    assert done.returncode == 0, done.stderr
    assert len(records((tmp_path / "stop.jsonl").read_text(encoding="ascii"))) == 41


def test_a_report_beside_the_records(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, page = write_images(tmp_path / "images", 5), tmp_path / "report.html"
    done = run_here(
        capsys, "classify", net, "--report", page, "--out", tmp_path / "o.csv", images, tmp_path / "missing.png"
    )
    assert done.returncode == 1, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure ") == 5
    assert text.count("data:image/jpeg;base64,") == 5
    assert "InputError: Could not open or find file …: No such file or directory: 1" in text


def same_records(first: pathlib.Path, second: pathlib.Path) -> bool:
    """The same, in whatever order."""
    if first.suffix in (".jsonl", ".csv"):
        return sorted(first.read_bytes().splitlines()) == sorted(second.read_bytes().splitlines())
    if first.suffix == ".parquet":
        import pyarrow.parquet

        tables = (pyarrow.parquet.read_table(name).sort_by("path") for name in (first, second))
        return bool(next(tables).equals(next(tables)))
    with np.load(first) as one, np.load(second) as other:
        orders = [np.argsort(arrays["path"]) for arrays in (one, other)]
        return all(np.array_equal(one[key][orders[0]], other[key][orders[1]]) for key in ("path", "index", "score"))


def test_the_same_images_under_other_names_of_a_job(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A copied model is the same job: contents count, not names."""
    copies = tuple(str(shutil.copy(name, tmp_path)) for name in net)
    images, out = write_images(tmp_path / "images", 3), tmp_path / "out.jsonl"
    assert run_here(capsys, "classify", net, "--out", out, images).returncode == 0
    done = run_here(capsys, "classify", (copies[0], copies[1]), "--resume", "--out", out, images)
    assert "there already      3\nimages             0" in done.stderr
    assert done.returncode == 0


def test_an_image_that_hangs_is_given_up(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    never = tmp_path / "never.png"
    os.mkfifo(never)
    out = tmp_path / "out.jsonl"
    words = ["--item-timeout", 0.5, "--retries", 0, "--out", out, never, write_images(tmp_path / "images", 20)]
    done = run_here(capsys, "classify", net, *words)
    assert done.returncode == 1, done.stderr
    written = {record["path"]: record for record in records(out.read_text(encoding="ascii"))}
    assert len(written) == 21
    assert [path for path in written if "error" in written[path]] == [str(never)]
    assert written[str(never)]["error"].startswith("ItemTimeout: ")
    assert written[str(never)]["attempts"] == 1
    assert "restarts           0" not in done.stderr


def test_gpus_that_are_not_there(
    net: tuple[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 0)
    for gpus, message in (("all", "--gpu all: this machine has no GPU"), ("0,1", "Device 'cuda:0' is not there")):
        line = ["classify", "--model", net[0], "--weights", net[1], "--gpu", gpus, "--out", str(tmp_path / "o.csv")]
        with pytest.raises(SystemExit, match="2"):
            cli.main([*line, write_png(tmp_path / "a.png")])
        assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["a.png"]


def test_gpus_are_the_devices_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: 3)
    asked = [_job._devices(text, "process") for text in (None, "all", "2", "0,02,0")]
    assert asked == [None, ["cuda:0", "cuda:1", "cuda:2"], ["cuda:2"], ["cuda:0", "cuda:2", "cuda:0"]]
    assert [_job._devices(text, "ray") for text in ("all", "7")] == ["all", ["cuda:7"]], "a cluster may have more"
