from __future__ import annotations

import pathlib

import numpy as np
import pytest

import pycaffe
from pycaffe.errors import ExportMismatch, InputError
from pycaffe.export import OutputError, check, export_onnx
from pycaffe.net import Net
from tests.export.nets import CAFFENET, MIXED, filled, left_behind, noise
from tests.net.nets import data, ip, layer, net_of


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "net.onnx"


@pytest.mark.parametrize("form", ["dict", "list", "random"])
def test_the_largest_error_of_each_output(form: str, out: pathlib.Path) -> None:
    net = filled(MIXED)
    inputs = {"dict": noise(net), "list": [noise(net, 1), noise(net, 5)], "random": True}[form]
    report = export_onnx(net, out, check=inputs)  # type: ignore[arg-type]
    assert list(report.errors) == ["elu", "flat"]
    for error in report.errors.values():
        assert 0 <= error.absolute < 1e-5
        assert 0 <= error.relative < 1e-5


def test_the_report_prints() -> None:
    report = pycaffe.ExportReport(
        "a.onnx",
        17,
        {"data": ("N", 3, 4, 5)},
        {"prob": ("N", 7)},
        1234567,
        "swapped",
        {"prob": OutputError(2e-7, 4e-7)},
    )
    assert str(report) == (
        "a.onnx: opset 17, 1.2 MB\n  input  data (N, 3, 4, 5)\n  swapped\n"
        "  output prob (N, 7)  largest error 2e-07, 4e-07 of the largest value"
    )


def test_a_file_that_differs_is_not_written(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = filled(CAFFENET)
    run = check._run_net

    def off_by_a_little(*arguments):
        return {name: values * 1.001 for name, values in run(*arguments).items()}

    monkeypatch.setattr(check, "_run_net", off_by_a_little)
    with pytest.raises(
        ExportMismatch, match=r"more than 0.0001 of an output's largest value(.|\n)*prob .* largest error"
    ):
        export_onnx(net, out, check=True)
    assert left_behind(out.parent) == []
    report = export_onnx(net, out, check=True, tolerance=0.01)
    assert report.errors["prob"].relative == pytest.approx(0.001 / 1.001, rel=1e-2)


def test_an_old_file_survives_a_failed_check(out: pathlib.Path) -> None:
    out.write_bytes(b"old")
    with pytest.raises(ExportMismatch):
        export_onnx(filled(CAFFENET), out, check=True, tolerance=-1)
    assert (left_behind(out.parent), out.read_bytes()) == (["net.onnx"], b"old")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": np.zeros((2, 3, 5, 43))}, r"input 'data' has shape \(2, 3, 5, 43\), expected \(N, 3, 35, 43\)"),
        ({"data": np.zeros((3, 35, 43))}, r"input 'data' has shape \(3, 35, 43\)"),
        ({"data": np.zeros((0, 3, 35, 43))}, r"expected one batch for all inputs, got \[0\]"),
        ({"image": np.zeros((2, 3, 35, 43))}, r"arrays for the inputs \['data'\], got \['image'\]"),
        ({}, r"arrays for the inputs \['data'\], got \[\]"),
        ([], r"check holds no inputs"),
        ([np.zeros((2, 3, 35, 43))], r"arrays for the inputs \['data'\]"),
    ],
)
def test_inputs_that_do_not_fit(given: object, message: str, out: pathlib.Path) -> None:
    with pytest.raises(InputError, match=message):
        export_onnx(filled(CAFFENET), out, check=given)  # type: ignore[arg-type]
    assert left_behind(out.parent) == []


def test_inputs_of_different_batches(out: pathlib.Path) -> None:
    net = net_of(data(2, 3) + data(2, 3, name="b") + layer("sum", "Eltwise", "data b"))
    with pytest.raises(InputError, match=r"one batch for all inputs, got \[2, 4\]"):
        export_onnx(net, out, check={"data": np.zeros((2, 3)), "b": np.zeros((4, 3))})


def test_random_inputs_are_valid_labels_and_indices(out: pathlib.Path) -> None:
    net = net_of(
        data(2, name="word")
        + data(2, 1, name="label")
        + layer("embed", "Embed", "word", rest="embed_param { input_dim: 5 num_output: 4 }")
        + ip("fc", "embed", 3)
        + layer("loss", "SoftmaxWithLoss", "fc label")
        + layer("top", "Accuracy", "fc label")
    )
    report = export_onnx(net, out, check=True)
    assert set(report.errors) == {"loss", "top"}


def test_what_is_not_finite() -> None:
    inf, nan = np.inf, np.nan
    same = np.float32([1, nan, inf, -inf])
    assert check._difference("y", same, same.copy()) == (0.0, 1.0)
    assert check._difference("y", np.float32([1, 2]), np.float32([1, nan])) == (inf, 2.0)
    assert check._difference("y", np.float32([1, inf]), np.float32([1, -inf]))[0] == inf
    assert check._difference("y", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)) == (0.0, 0.0)
    with pytest.raises(ExportMismatch, match=r"'y' of the exported file has shape \(2,\), the net's \(1,\)"):
        check._difference("y", np.zeros(1, np.float32), np.zeros(2, np.float32))


def test_a_file_that_onnxruntime_cannot_load(out: pathlib.Path) -> None:
    out.write_bytes(b"no model")
    with pytest.raises(ExportMismatch, match="onnxruntime cannot load the exported file"):
        check._session(str(out))


def test_the_reference_is_torch(out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = []
    init = Net.__init__

    def noting(self, *arguments, **named):
        engines.append(named.get("engine"))
        init(self, *arguments, **named)

    net = filled(CAFFENET)
    monkeypatch.setattr(Net, "__init__", noting)
    export_onnx(net, out, check=True)
    assert engines == ["torch"]
