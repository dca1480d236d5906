from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from pycaffe import TEST, ImagePreprocess, Net
from tests.cli.case import records, run, run_here, write_png
from tests.conftest import TrainedNet


def classify(net: tuple[str, str], *words: Any, **arguments: Any) -> subprocess.CompletedProcess[str]:
    return run("classify", net, *words, **arguments)


def scores(net: tuple[str, str], colour: tuple[float, float, float]) -> Any:
    """What the tiny net gives for an image of one colour (blue, green, red)."""
    layer = Net(net[0], TEST, weights=net[1])
    layer.blobs["data"].data[...] = np.float32(colour)[:, None, None]
    return layer.forward()["score"][0]


def test_records_have_the_best_classes_with_their_labels(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    path = write_png(tmp_path / "é.png", (30, 20, 10))
    labels, out = tmp_path / "labels.txt", tmp_path / "out.jsonl"
    labels.write_text("".join(f"n0{i} class {i}\n" for i in range(7)), encoding="utf-8")
    done = classify(net, "--labels", labels, "--mean", "1,2,3", "--scale", "0.5", "--top", 3, "--out", out, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    (record,) = records(out.read_text(encoding="utf-8"))
    expected = scores(net, (4.5, 9, 13.5))
    best = np.argsort(-expected)[:3]
    assert record["path"] == path
    assert [found["index"] for found in record["top"]] == best.tolist()
    assert [found["label"] for found in record["top"]] == [f"n0{i} class {i}" for i in best]
    np.testing.assert_allclose([found["score"] for found in record["top"]], expected[best], rtol=1e-4)
    assert set(record) == {"path", "top"}, "what differs from run to run is not in the file"
    assert re.search(
        r"images +1\nfailures +0\nseconds +[\d.]+\nimages/s +[\d.]+\nrestarts +0\n.*\d+ MB of its own", done.stderr
    )


def test_files_folders_globs_and_lists(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    for name in ("b/2.png", "b/1.PNG", "b/deep/3.png", "g/4.png", "g/5.png", "6.png", "7.image"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_png(tmp_path / name)
    (tmp_path / "b" / "notes.txt").write_text("no image", encoding="utf-8")
    (tmp_path / "list.txt").write_text("6.png\n\n7.image\n", encoding="utf-8")
    done = classify(net, "b", "g/*.png", "@list.txt", "b/2.png", "6.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = [record["path"] for record in records(done.stdout)]
    assert sorted(found) == ["6.png", "7.image", "b/1.PNG", "b/2.png", "b/deep/3.png", "g/4.png", "g/5.png"]


def test_images_that_cannot_be_read_are_records_and_the_job_goes_on(
    net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    good = write_png(tmp_path / "good.png")
    whole = pathlib.Path(good).read_bytes()
    bad = {"corrupt": b"\x89PNG" + bytes(99), "empty": b"", "truncated": whole[:-20], "text": b"hello"}
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png")
    shutil.copy(good, undecodable)
    names = [good, *(tmp_path / name for name in bad), tmp_path / "missing.png", undecodable]
    done = classify(net, "--workers", 2, *names)
    assert done.returncode == 1, done.stderr
    by_path = {record["path"]: record for record in records(done.stdout)}
    assert len(by_path) == 7
    for path in (good, undecodable):
        assert by_path[path]["top"][0]["index"] == int(scores(net, (10, 20, 30)).argmax())
    for name in [*bad, "missing.png"]:
        record = by_path[str(tmp_path / name)]
        assert re.match(r"InputError: Could not (decode|open or find file) '.*" + name, record["error"])
        assert record["attempts"] == 1
        assert "top" not in record
    assert re.search(r"failures +5\n", done.stderr)
    assert done.stderr.count("failed: ") == 5


def test_labels_from_a_label_map(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    labels = tmp_path / "labelmap.prototxt"
    labels.write_text("".join(f'item {{ name: "n{i}" label: {i} }}' for i in range(6)), encoding="utf-8")
    (record,) = records(classify(net, "--labels", labels, "--top", 7, write_png(tmp_path / "a.png")).stdout)
    names = {found["index"]: found["label"] for found in record["top"]}
    assert names == {6: "class 6", **{i: f"n{i}" for i in range(6)}}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "none.prototxt"], "none.prototxt"),
        (["--weights", "none.caffemodel"], "none.caffemodel"),
        (["--labels", "none.txt"], "Could not read the labels 'none.txt'"),
        (["--labels", "@two"], "has 2 labels, and 'score' has 7 classes"),
        (["--mean", "1,2"], "Specify either 1 mean_value or as many as channels: 3"),
        (["--mean", "none.binaryproto"], "Could not open or find file 'none.binaryproto'"),
        (["--crop", "9"], "Input size incompatible with inner product parameters"),
        (["--resize", "9"], "The net's input is 4 x 5: give --crop, or leave out --resize"),
        (["--resize", "3", "--crop", "4"], "Cannot crop 4 x 4 pixels from images of 3 x 3"),
        (["none*.png"], "No file matches 'none*.png'"),
        (["@none.txt"], "Could not open or find file 'none.txt'"),
        (["--out", "@two", "--format", "csv"], "holds records already"),
        (["--out", "@two"], "Unknown suffix ''"),
        (["--out", "no/such/folder.csv"], "Could not write 'no/such/folder.csv'"),
        (["--out", "no/such/folder.npz"], "Could not write 'no/such/folder.npz'"),
        (["--report", "no/such/report.html"], "Could not write the report 'no/such/report.html'"),
        (["--resume"], "--resume goes on with a file, and '-' is none"),
        (["--resume", "--out", "/dev/null"], "--resume goes on with a file, and '/dev/null' is none"),
        (["--gpu", "0,one"], "--gpu takes numbers, as in 0,1, or all, not '0,one'"),
        (["--gpu", "99"], "Device 'cuda:99' is not there"),
        (["--workers", "0"], "Invalid value for '--workers'"),
        (["--colour", "red"], "No such option"),
    ],
)
def test_what_cannot_be_carried_out_is_said_before_anything_is_written(
    net: tuple[str, str],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "two").write_text("one\ntwo\n", encoding="utf-8")
    image = write_png(tmp_path / "a.png")
    words = [str(tmp_path / "two") if word == "@two" else word for word in words]
    done = run_here(capsys, "classify", net, *words, image)
    assert message in done.stderr
    assert done.returncode == 2
    assert done.stdout == ""


def test_no_image_at_all(net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run_here(capsys, "classify", net, tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "No images" in done.stderr


def write_net(folder: pathlib.Path, shape: tuple[int, ...], layer: str) -> str:
    dims = " ".join(f"dim: {extent}" for extent in shape)
    path = folder / "net.prototxt"
    path.write_text(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }} {layer}',
        encoding="utf-8",
    )
    return str(path)


POOL = 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { pool: AVE global_pooling: true } }'


def test_a_grey_net_and_the_crop_that_follows_from_the_net(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    model = write_net(tmp_path, (1, 1, 4, 4), POOL)
    path = write_png(tmp_path / "a.png", (50, 100, 200))
    done = classify((model, net[1]), "--resize", 6, "--mean", "10", path)
    assert done.returncode == 0, done.stderr
    grey = ImagePreprocess(mean=None, grey=True)(path)[0, 0, 0]
    assert records(done.stdout)[0]["top"] == [{"index": 0, "score": pytest.approx(float(grey) - 10, abs=1e-3)}]


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        ((1, 3), "", "classify needs a net with one input of shape (N, 3 or 1, height, width)"),
        ((1, 5, 4, 4), POOL, "{'data': (1, 5, 4, 4)}"),
        ((1, 3, 4, 4), POOL.replace("global_pooling: true", "kernel_size: 2"), "classify needs scores of shape"),
    ],
)
def test_nets_that_do_not_classify(
    net: tuple[str, str],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    shape: tuple[int, ...],
    layer: str,
    message: str,
) -> None:
    other = write_net(tmp_path, shape, layer), net[1]
    done = run_here(capsys, "classify", other, write_png(tmp_path / "a.png"))
    assert message in done.stderr
    assert done.returncode == 2


def test_open_nsfw_finds_the_photographs_safe(open_nsfw: TrainedNet, photographs: pathlib.Path) -> None:
    """Reference Caffe, through another client with another resize and a JPEG between, gives 0.032, 0.013 and 0.0005."""
    names = [photographs / name for name in ("astronaut.png", "coffee.png", "rocket.jpg")]
    done = classify(
        (str(open_nsfw.model), str(open_nsfw.weights)),
        *("--workers", 2, "--mean", "104,117,123", "--resize", 256, "--crop", 224, *names),
    )
    assert done.returncode == 0, done.stderr
    unsafe = {
        pathlib.Path(record["path"]).name: next(found["score"] for found in record["top"] if found["index"] == 1)
        for record in records(done.stdout)
    }
    assert unsafe == {
        "astronaut.png": pytest.approx(0.032, abs=0.02),
        "coffee.png": pytest.approx(0.013, abs=0.01),
        "rocket.jpg": pytest.approx(0.0005, abs=0.0005),
    }
