from __future__ import annotations

import pathlib
import platform
import tempfile

import numpy as np
import pytest

from pycaffe.engines import quantized
from pycaffe.engines.segment import lower_segment
from pycaffe.errors import InputError
from pycaffe.images import ImagePreprocess
from pycaffe.net import Net
from tests.conftest import TrainedNet
from tests.net.nets import CONV, data, ip, layer, net_of, normal

TEXT = (
    data(2, 3, 12, 14)
    + layer("conv", "Convolution", "data", rest=CONV)
    + layer("bn", "BatchNorm", "conv")
    + layer("relu", "ReLU", "bn", "bn")
    + layer("norm", "LRN", "bn")
    + layer("pool", "Pooling", "norm", rest="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
    + ip("fc", "pool", 5)
    + layer("prob", "Softmax", "fc")
)
INPUTS = [normal(2, 3, 12, 14, seed=seed) for seed in range(10, 26)]


def pair(text: str = TEXT, inputs: object = INPUTS) -> tuple[Net, Net]:
    net, want = net_of(text, precision="int8", calibration=inputs), net_of(text, engine="torch")
    want.params["bn"][0].data[...] = [0.1, -0.2, 0.3, 0]
    want.params["bn"][1].data[...] = [1, 2, 0.5, 1]
    want.params["bn"][2].data[...] = 1
    net.share_with(want)
    return net, want


def error(net: Net, want: Net, x: np.ndarray, blob: str) -> float:
    """Relative to the largest value."""
    got, expected = net.forward(blobs=[blob], data=x)[blob], want.forward(blobs=[blob], data=x)[blob]
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("blob", "most"), [("conv", 0.04), ("bn", 0.04), ("norm", 0.06), ("fc", 0.06)])
def test_values_are_near_float32_and_not_the_same(blob: str, most: float) -> None:
    net, want = pair()
    for x in (INPUTS[0], normal(2, 3, 12, 14, seed=3)):
        assert 1e-4 < error(net, want, x, blob) < most


def test_all_blobs_and_the_partial_forward(temporary_files: pathlib.Path) -> None:
    net, want = pair()
    net.forward(data=INPUTS[1])
    want.forward(data=INPUTS[1])
    for blob in ("conv", "bn", "norm", "pool", "fc", "prob"):
        expected = want.blobs[blob].data
        np.testing.assert_allclose(net.blobs[blob].data, expected, atol=0.06 * np.abs(expected).max())
    for n in (net, want):
        n.blobs["norm"].data[...] = want.blobs["norm"].data
    got, expected = (n.forward(start="pool", end="fc")["fc"] for n in (net, want))
    np.testing.assert_allclose(got, expected, atol=0.06 * np.abs(expected).max())
    assert not np.array_equal(got, expected)
    assert list(temporary_files.iterdir()) == [], "temporary files are gone"


def test_surgery_is_quantised_anew() -> None:
    net, want = pair()
    assert error(net, want, INPUTS[2], "fc") < 0.06
    net.params["conv"][0].data[...] *= 10  # outside of the ranges that were seen
    net.params["fc"][1].data[...] = 5
    assert error(net, want, INPUTS[2], "fc") < 0.06


def test_other_batches_than_the_calibrations() -> None:
    net, want = pair()
    for size in (1, 3, 5):
        for n in (net, want):
            n.blobs["data"].reshape(size, 3, 12, 14)
        assert error(net, want, normal(size, 3, 12, 14, seed=size), "fc") < 0.08


def test_single_images_and_one_array_of_many() -> None:
    images = np.concatenate(INPUTS)
    for inputs in (list(images), images, [images], ({"data": image} for image in images)):
        net, want = pair(inputs=inputs)
        assert 1e-4 < error(net, want, INPUTS[0], "fc") < 0.06


def test_another_image_size_than_the_calibrations() -> None:
    net = net_of(data(1, 3, 6, 7) + layer("conv", "Convolution", "data", rest=CONV), precision="int8",
                 calibration=[normal(3, 6, 7)])  # fmt: skip
    net.forward()
    net.blobs["data"].reshape(1, 3, 8, 9)
    with pytest.raises(InputError, match=r"shape \(1, 3, 6, 7\), and the net now runs with \(1, 3, 8, 9\)"):
        net.forward()


def test_values_that_are_not_finite() -> None:
    bad = INPUTS[1].copy()
    bad[0, 0, 0, 0] = np.nan
    net, _ = pair(inputs=[INPUTS[0], bad])
    with pytest.raises(InputError, match="Calibration input 1 has a value in 'blob/data' that is not finite"):
        net.forward()


def test_no_samples_for_a_segment() -> None:
    net = net_of(TEXT)
    net.reshape()
    segment = lower_segment(net._graph, 0, len(net.layers) - 1)
    values = [storage.array().reshape(shape) for _, storage, shape in segment.parameters]
    with pytest.raises(InputError, match="calibration is empty"):
        quantized.create_quantized_session(segment, values, [], 1)


def test_the_squares_of_lrn_stay_in_float32() -> None:
    net = net_of(TEXT)
    net.reshape()
    unsuited = quantized._unsuited(lower_segment(net._graph, 0, len(net.layers) - 1).model)
    assert [name.partition("/")[0] for name in unsuited] == ["norm"]


def test_a_model_too_large_for_one_message(monkeypatch: pytest.MonkeyPatch, temporary_files: pathlib.Path) -> None:
    monkeypatch.setattr(quantized, "LARGE", 1000)
    net, want = pair()
    assert 1e-4 < error(net, want, INPUTS[0], "fc") < 0.06
    assert list(temporary_files.iterdir()) == []


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    pair()[0].forward()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("machine", "exact"), [("aarch64", True), ("arm64", True), ("x86_64", None)])
def test_seven_bits_where_sixteen_would_overflow(
    machine: str, exact: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    if exact is not None:
        assert quantized._multiplies_uint8_exactly() is exact
        return
    for flags, answer in (("flags: avx2 fma", False), ("flags: avx512f avx512_vnni", True), ("avx_vnni", True)):
        monkeypatch.setattr(pathlib.Path, "read_text", lambda *_, flags=flags, **__: flags)
        assert quantized._multiplies_uint8_exactly() is answer


def test_rounding_to_seven_bits_is_good_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "_multiplies_uint8_exactly", lambda: False)
    net, want = pair()
    assert 1e-4 < error(net, want, INPUTS[0], "fc") < 0.08


@pytest.mark.slow
def test_open_nsfw_calibrated_with_half_of_the_photographs(open_nsfw: TrainedNet, photographs: pathlib.Path) -> None:
    prepare = ImagePreprocess(resize=256, crop=224)
    inputs = [prepare(str(path)) for path in sorted(photographs.iterdir())]
    net = Net(open_nsfw.model, weights=open_nsfw.weights, precision="int8", calibration=inputs[::2])
    found = net.compare(inputs, Net(open_nsfw.model, weights=open_nsfw.weights, engine="onnxruntime"))
    assert found.outputs["prob"].top1 == 1
    assert 1e-4 < found.outputs["prob"].largest < 0.06
    assert found.outputs["prob"].cosine > 0.99
