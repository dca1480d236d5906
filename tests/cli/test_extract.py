from __future__ import annotations

import os
import pathlib
import sys

import numpy as np
import pyarrow.parquet
import pytest

from pycaffe import TEST, ImagePreprocess, Net
from tests.cli.case import records, run, run_here, write_images, write_png
from tests.cli.test_classify import POOL, write_net


def features(net: tuple[str, str], path: str) -> dict[str, np.ndarray]:
    """Of one image, by a net in this process."""
    layers = Net(net[0], TEST, weights=net[1])
    layers.blobs["data"].data[...] = ImagePreprocess(mean=(1, 2, 3), resize=(4, 5))(path)
    layers.forward()
    return {name: layers.blobs[name].data[0].copy() for name in ("data", "score")}


def test_features_of_any_blobs_in_each_format(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", 3)
    for suffix in ("jsonl", "parquet", "npz"):
        out = tmp_path / f"out.{suffix}"
        done = run_here(capsys, "extract", net, "--blobs", "score,data", "--mean", "1,2,3", "--out", out, images)
        assert done.returncode == 0, done.stderr
        if suffix == "jsonl":
            found = [(each["path"], each["blobs"]) for each in records(out.read_text(encoding="ascii"))]
        elif suffix == "parquet":
            found = [(each["path"], each) for each in pyarrow.parquet.read_table(out).to_pylist()]
        else:
            with np.load(out) as arrays:
                assert arrays["data"].shape == (3, 3, 4, 5)
                rows = zip(arrays["path"], arrays["score"], arrays["data"])
                found = [(str(path), {"score": score, "data": data}) for path, score, data in rows]
        assert len(found) == 3
        for path, blobs in found:
            expected = features(net, path)
            np.testing.assert_array_equal(np.float32(blobs["data"]).ravel(), expected["data"].ravel())
            np.testing.assert_allclose(np.float32(blobs["score"]), expected["score"], rtol=1e-5)


def test_a_field_for_each_value(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.csv"
    image = write_png(tmp_path / "a.png")
    assert run_here(capsys, "extract", net, "--blobs", "score", "--out", out, image).returncode == 0
    header, line = out.read_text(encoding="utf-8").splitlines()
    assert header == '"path","score_0","score_1","score_2","score_3","score_4","score_5","score_6","error"'
    assert line.startswith(f'"{tmp_path}/a.png",')
    assert line.endswith(',""')


def test_a_blob_without_a_batch_axis_is_taken_whole(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layer = (
        'layer { name: "r" type: "Reshape" bottom: "data" top: "r" reshape_param { shape { dim: 3 dim: 4 dim: 5 } } }'
    )
    model = write_net(tmp_path, (1, 3, 4, 5), layer)
    done = run_here(
        capsys, "extract", (model, net[1]), "--blobs", "r", "--out", tmp_path / "o.npz", write_png(tmp_path / "a.png")
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "o.npz") as arrays:
        assert arrays["r"].shape == (1, 3, 4, 5)


def test_an_image_that_cannot_be_read_has_an_error_and_no_features(
    net: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "o.npz"
    done = run("extract", net, "--blobs", "score", "--out", out, write_png(tmp_path / "a.png"), tmp_path / "b.png")
    assert done.returncode == 1
    with np.load(out) as arrays:
        assert arrays["score"].shape == (1, 7)
        assert arrays["failed"].tolist() == [str(tmp_path / "b.png")]
        assert "Could not open or find file" in str(arrays["error"][0])


@pytest.mark.parametrize(
    ("blobs", "message"),
    [
        ("scor", "Unknown blob name 'scor'. Did you mean 'score'? The net has 'data', 'score'"),
        ("score,", "Unknown blob name ''"),
    ],
)
def test_unknown_blobs(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], blobs: str, message: str
) -> None:
    words = ["--blobs", blobs, "--out", tmp_path / "o.csv", write_png(tmp_path / "a.png")]
    done = run_here(capsys, "extract", net, *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_blobs_with_the_name_of_a_column(
    net: tuple[str, str], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_net(tmp_path, (1, 3, 4, 4), POOL.replace('"p"', '"path"'))
    done = run_here(capsys, "extract", (model, net[1]), "--blobs", "path", write_png(tmp_path / "a.png"))
    assert done.returncode == 2
    assert "A blob with the name 'path' cannot be written" in done.stderr


def test_parquet_without_its_library(net: tuple[str, str], tmp_path: pathlib.Path) -> None:
    (tmp_path / "pyarrow.py").write_text("raise ImportError('none here')", encoding="ascii")
    words = ["--blobs", "score", "--out", tmp_path / "o.parquet", write_png(tmp_path / "a.png")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = run("extract", net, *words, env=environment)
    assert done.returncode == 2
    assert (
        'writing Parquet needs pyarrow, which is not installed. Install it: pip install "pycaffe[parquet]"'
        in done.stderr
    )
