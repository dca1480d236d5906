from __future__ import annotations

import pathlib

import numpy as np
import pytest

import pycaffe.cli
from pycaffe.export import check
from pycaffe.images import ImagePreprocess
from tests.cli.test_classify import write_png
from tests.export.nets import CAFFENET, answer, assert_same, filled, left_behind, noise, run_file
from tests.net.nets import data, ip, layer


@pytest.fixture
def files(tmp_path: pathlib.Path) -> list[str]:
    """The options that name a net."""
    (tmp_path / "net.prototxt").write_text(CAFFENET, encoding="utf-8")
    filled(CAFFENET).save(tmp_path / "net.caffemodel")
    return ["--model", str(tmp_path / "net.prototxt"), "--weights", str(tmp_path / "net.caffemodel")]


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "net.onnx"


def export(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of `caffe export`."""
    with pytest.raises(SystemExit) as ended:
        pycaffe.cli.main(["export", *map(str, words)])
    output = capfd.readouterr()
    return int(ended.value.code or 0), output.out, output.err


def test_a_file_and_its_report(files: list[str], out: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, output, _ = export(capfd, *files, out)
    assert status == 0
    assert output.splitlines()[1:] == ["  input  data (N, 3, 35, 43)", "  output prob (N, 7)"]
    inputs = noise(filled(CAFFENET), 3)
    assert_same(answer(filled(CAFFENET), inputs), run_file(out, inputs))


def test_check(files: list[str], out: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    status, output, _ = export(capfd, *files, "--check", "--opset", 13, "--fixed-batch", 4, out)
    assert status == 0
    assert f"{out}: opset 13" in output
    assert "input  data (4, 3, 35, 43)" in output
    assert "output prob (4, 7)  largest error " in output


@pytest.mark.parametrize("batch", [[], ["--fixed-batch", 2]])
def test_raw_images(
    batch: list[object], files: list[str], out: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for index, colour in enumerate([(10, 20, 30), (200, 100, 0)]):
        write_png(tmp_path / "images" / f"{index}.png", colour)
    folding = ["--mean", "1,2,3", "--scale", 0.02, "--channel-swap", "--check-images", tmp_path / "images"]
    status, output, error = export(capfd, *files, *folding, *batch, out)
    assert (status, error) == (0, "")
    assert "red, green, blue, minus mean [1.0, 2.0, 3.0], times 0.02" in output
    assert "largest error" in output
    preprocess = ImagePreprocess(mean=(1, 2, 3), scale=0.02, channel_order="RGB", resize=(35, 43))
    raw = ImagePreprocess(mean=None, resize=(35, 43))
    image = str(tmp_path / "images" / "1.png")
    want = answer(filled(CAFFENET), {"data": np.stack([preprocess(image)] * 2)})
    assert_same(want, run_file(out, {"data": np.stack([raw(image)] * 2)}))


def test_a_fixed_batch_is_that_of_the_inputs_that_share_one(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text = data(1, 3) + data(5, 2, name="other") + ip("a", "data", 2) + ip("b", "other", 4)
    (tmp_path / "net.prototxt").write_text(text, encoding="utf-8")
    filled(text).save(tmp_path / "net.caffemodel")
    files = ["--model", tmp_path / "net.prototxt", "--weights", tmp_path / "net.caffemodel"]
    status, output, _ = export(capfd, *files, "--fixed-batch", 3, tmp_path / "net.onnx")
    assert status == 0
    assert "input  data (3, 3)\n  input  other (5, 2)\n  output a (3, 2)\n  output b (5, 4)" in output


def test_a_failed_check(
    files: list[str], out: pathlib.Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = check._run_net
    monkeypatch.setattr(check, "_run_net", lambda *a: {name: v * 1.001 for name, v in run(*a).items()})
    status, output, error = export(capfd, *files, "--check", out)
    assert (status, output) == (1, "")
    assert "more than 0.0001 of an output's largest value" in error
    assert "output prob (N, 7)  largest error" in error
    assert left_behind(out.parent) == []
    assert export(capfd, *files, "--check", "--tolerance", 0.01, out)[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "none.prototxt"], "none.prototxt"),
        (["--weights", "none.caffemodel"], "none.caffemodel"),
        (["--opset", "12"], "Cannot export to opset 12. Expected one from 13 to 21"),
        (["--check-images", "none*.png"], "No file matches 'none*.png'"),
        (["--check-images", "none.png"], "Could not open or find file 'none.png'"),
        (["--mean", "1,2"], "Specify either 1 mean_value or as many as channels: 3"),
        (["--mean", "none.npy"], "Could not read the mean file 'none.npy'"),
        (["--fixed-batch", "0"], "Invalid value for '--fixed-batch'"),
    ],
)
def test_what_cannot_be_exported(
    words: list[str], message: str, files: list[str], out: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, output, error = export(capfd, *files, *words, out)
    assert (status, output) == (2, "")
    assert message in error
    assert left_behind(out.parent) == []


def test_places_and_nets_that_do_not_fit(
    files: list[str], tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, error = export(capfd, *files, tmp_path / "no" / "net.onnx")
    assert status == 2
    assert "No such file or directory" in error
    (tmp_path / "net.prototxt").write_text(data(2, 3) + ip("fc", "data", 2), encoding="utf-8")
    with pytest.warns(UserWarning, match="nothing was copied"):
        status, _, error = export(capfd, *files, "--scale", 2, tmp_path / "net.onnx")
    assert status == 2
    assert "need a net with one input of shape (N, 3 or 1, height, width). This one has {'data': (2, 3)}" in error
    reader = layer("read", "Data", top="data", rest='data_param { source: "none" batch_size: 2 }')
    (tmp_path / "net.prototxt").write_text(reader, encoding="utf-8")
    status, _, error = export(capfd, *files, tmp_path / "net.onnx")
    assert status == 2
    assert "Cannot export layer 'read' of type 'Data'" in error
    assert "deploy form" in error
