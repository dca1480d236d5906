from __future__ import annotations

import pathlib

import numpy as np
import onnx
import pytest

import pycaffe
from pycaffe.errors import ExportError
from pycaffe.export import export_onnx
from tests.export.nets import answer, assert_same, conv, filled, run_file
from tests.net.nets import data, ip, net_of

TEXT = data(2, 3, 9, 11) + conv("conv", "data", 4, "kernel_size: 3 pad: 1") + ip("fc", "conv", 5)
GREY = TEXT.replace("dim: 3 dim: 9", "dim: 1 dim: 9")
IMAGES = np.random.default_rng(2).integers(0, 256, (3, 9, 11, 3), np.uint8)  # as OpenCV reads them: (H, W, BGR)
MEAN_IMAGE = np.random.default_rng(3).uniform(90, 130, (3, 14, 12)).astype(np.float32)


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "net.onnx"


@pytest.mark.parametrize(
    "preprocess",
    [
        pycaffe.ImagePreprocess(),
        pycaffe.ImagePreprocess(mean=(1, 20, 55), scale=0.017, channel_order="RGB"),
        pycaffe.ImagePreprocess(mean=None, scale=1 / 255),
        pycaffe.ImagePreprocess(mean=None, channel_order="RGB"),
        pycaffe.ImagePreprocess(mean=MEAN_IMAGE, channel_order="RGB"),
        pycaffe.ImagePreprocess(mean=None),
        pycaffe.ImagePreprocess(mean=7),
    ],
    ids=repr,
)
def test_the_file_takes_raw_images(preprocess: pycaffe.ImagePreprocess, out: pathlib.Path) -> None:
    net = filled(TEXT)
    raw = IMAGES.transpose(0, 3, 1, 2).astype(np.float32)
    report = export_onnx(net, out, preprocessing=preprocess, check={"data": raw})
    assert report.inputs == {"data": ("N", 3, 9, 11)}
    want = answer(net, {"data": np.stack([preprocess(image) for image in IMAGES])})
    assert_same(want, run_file(out, {"data": raw}))


def test_a_grey_net(out: pathlib.Path) -> None:
    net = filled(GREY)
    preprocess = pycaffe.ImagePreprocess(mean=12, scale=0.5, grey=True, channel_order="RGB")
    raw = IMAGES[:, :, :, :1].transpose(0, 3, 1, 2).astype(np.float32)
    export_onnx(net, out, preprocessing=preprocess, check=True)
    want = answer(net, {"data": np.stack([preprocess(image[:, :, :1]) for image in IMAGES])})
    assert_same(want, run_file(out, {"data": raw}))


def test_the_report_and_the_file_say_what_is_done(out: pathlib.Path) -> None:
    preprocess = pycaffe.ImagePreprocess(mean=(1, 2, 3), scale=0.5, channel_order="RGB")
    report = export_onnx(filled(TEXT), out, preprocessing=preprocess)
    said = "'data' takes pixels 0 to 255 (blue, green, red); red, green, blue, minus mean [1.0, 2.0, 3.0], times 0.5"
    assert report.preprocessing == said
    assert said in str(report)
    assert onnx.load(out).graph.input[0].doc_string == said
    report = export_onnx(filled(TEXT), out, preprocessing=pycaffe.ImagePreprocess(mean=MEAN_IMAGE))
    assert "minus mean image (3, 9, 11)" in str(report)
    assert "nothing is done" in str(export_onnx(filled(TEXT), out, preprocessing=pycaffe.ImagePreprocess(mean=None)))


def test_other_inputs_stay_as_they_are(out: pathlib.Path) -> None:
    net = filled(TEXT + data(2, 4, name="more") + ip("other", "more", 3))
    raw = {"data": IMAGES[:2].transpose(0, 3, 1, 2).astype(np.float32), "more": np.ones((2, 4), np.float32)}
    export_onnx(net, out, preprocessing=pycaffe.ImagePreprocess(), check=raw)


@pytest.mark.parametrize(
    ("text", "preprocess", "message"),
    [
        (GREY, pycaffe.ImagePreprocess(), r"one input of shape \(N, 3, H, W\); 0 of the net's inputs"),
        (data(2, 3) + ip("fc", "data", 2), pycaffe.ImagePreprocess(), "0 of the net's inputs"),
        (
            TEXT + data(2, 3, 4, 5, name="second") + ip("other", "second", 2),
            pycaffe.ImagePreprocess(),
            "2 of the net's inputs",
        ),
        (TEXT, pycaffe.ImagePreprocess(mean=MEAN_IMAGE[:, :8]), "8 x 12 pixels, fewer than the input 'data'"),
    ],
)
def test_nets_and_means_that_do_not_fit(
    text: str, preprocess: pycaffe.ImagePreprocess, message: str, out: pathlib.Path
) -> None:
    with pytest.raises(ExportError, match=message):
        export_onnx(net_of(text), out, preprocessing=preprocess)
    assert list(out.parent.iterdir()) == []
