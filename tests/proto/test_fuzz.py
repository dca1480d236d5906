"""Random and damaged files: nothing but typed errors, in bounded time and memory."""

from __future__ import annotations

import pathlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pycaffe.errors import CaffeError, ProtoError, WeightsError
from pycaffe.proto.caffemodel import read_blob, read_weights
from pycaffe.proto.filter import filter_net
from pycaffe.proto.insert_splits import insert_splits
from pycaffe.proto.prototxt import load_net, parse_net, parse_text
from pycaffe.proto.schema import BlobProto, NetParameter, SolverParameter
from pycaffe.proto.wire import WireError, scan_net

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
TEXTS = [path.read_text() for path in sorted((GOLDEN / "upgrade").glob("*.prototxt"))]
MODEL = (GOLDEN / "data" / "snapshots" / "sgd_binaryproto_iter_5.caffemodel").read_bytes()
FUZZ = settings(
    max_examples=300,
    deadline=2000,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def old_formats() -> bytes:
    """A file with what the golden model lacks: V1 and V0 layers, doubles, halves, legacy shapes, unpacked numbers."""
    net = NetParameter(name="old")
    net.layers.add(name="v1").blobs.add(double_data=[1, 2, 3], num=1, channels=1, height=1, width=3)
    net.layers.add(layer={"name": "v0", "blobs": [{"data": [1, 2, 3]}]})
    net.layer.add(name="half").blobs.add(raw_data=b"123456", raw_data_type=2, shape={"dim": [3]})
    unpacked = b"\x0a\x01u\x3a\x0f" + b"\x2d\x00\x00\x80\x3f" * 3
    return net.SerializeToString() + b"\xa2\x06" + bytes([len(unpacked)]) + unpacked


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A file cut, with bytes changed, taken out, put in, or doubled."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["change", "insert", "remove", "repeat", "cut"]))
        if kind == "change" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[at:at] = draw(st.binary(max_size=12))
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 20))]
        elif kind == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 200))]
        elif kind == "cut":
            del data[at:]
    return bytes(data)


def use_weights(path: pathlib.Path) -> None:
    """Reads all of a file; only a WeightsError may come of it."""
    try:
        weights = read_weights(path)
    except WeightsError as error:
        assert path.name in str(error)
        return
    for blobs in weights.layers.values():
        for blob in blobs:
            try:
                values = blob.data()
            except WeightsError as error:
                assert "values, the file holds" in str(error) or "no array can have" in str(error)
            else:
                assert values.shape == blob.shape and values.dtype == np.float32 and values.size == blob.count


@FUZZ
@given(data=damaged([MODEL, old_formats()]))
def test_damaged_weights(tmp_path, data):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    use_weights(path)


@FUZZ
@given(data=st.binary(max_size=400))
def test_random_bytes_as_weights(tmp_path, data):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    use_weights(path)
    try:
        read_blob(path)
    except ProtoError as error:
        assert path.name in str(error)


@FUZZ
@given(data=damaged([MODEL, old_formats()]))
def test_the_scanner_takes_what_protobuf_takes(data):
    """Whatever protobuf parses, the scanner parses, and finds the same blobs."""
    try:
        net = NetParameter.FromString(data)
    except Exception:
        return
    try:
        layers = list(scan_net(data))
    except WireError as error:
        # The scanner refuses what no blob can have; protobuf does not know.
        assert any(reason in str(error) for reason in ("negative dimension", "more than 32 axes", "raw_data"))
        return
    expected = sorted([len(x.blobs) + len(x.layer.blobs) for x in net.layers] + [len(x.blobs) for x in net.layer])
    assert sorted(len(layer.blobs) for layer in layers) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\xa2\x06\xff\xff\xff\xff\x7f\x3a\xff\xff\xff\xff\x7e\x2a\xff\xff\xff\xff\x7d",
        b"\xa2\x06\x10\x3a\x0e\x3a\x0c\x0a\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x01",
        b"\xa2\x06\x14\x3a\x12\x08\xff\xff\xff\xff\x07\x10\xff\xff\xff\xff\x07\x18\xff\xff\xff\xff\x07",
        b"\x0b" * 100_000,
        b"\xa2\x06\x00" * 20_000,
        b"\x2d\x00\x00\x00\x00\x35\x00\x00\x00\x00" * 20_000,
    ],
)
def test_no_memory_for_what_a_file_only_claims(tmp_path, data):
    path = tmp_path / "w.caffemodel"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        use_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


# ---------- prototxt


WORDS = st.sampled_from(
    [
        *"{ } < > [ ] , ; : - # \\ 1 -2 3.5f 0x1F inf true".split(),
        *"name layer layers type bottom top include phase TRAIN input input_dim input_shape dim".split(),
        *"convolution_param kernel_size pooling_param pool MAX RELU blobs_lr param lr_mult".split(),
        *('"a"', "'b'", '"open', "\n", "name: 'x'", 'type: "ReLU"', "bottom: 'a'", "top: 'a'", "layer {"),
    ]
)


def use_text(text: str) -> None:
    """Reads a net as a user does, up to the Split layers; only this package's errors may come of it."""
    try:
        source = insert_splits(filter_net(parse_net(text, "f.prototxt")))
    except CaffeError as error:
        assert len(str(error)) < 1_000
    else:
        assert len(source.layer_lines) == len(source.param.layer)


@FUZZ
@given(text=st.text(max_size=200))
@example("{" * 50_000)
@example("layer {" * 5_000)
@example("state {" * 5_000)
@example('layer { name: "' + "a" * 20_000)
@example("#" * 100_000)
@example('\\"' * 50_000)
@example('"\\"' * 20_000 + "'")
@example("- " * 50_000)
@example("1" * 50_000)
@example("layer { loss_weight: " + "1" * 10_000 + " }")
@example('name: "\\377"')
@example("[a.b/c] { x: 1 }")
@example("layer { [caffe.x]: 1 }")
@example("\ud800")
def test_random_text(text):
    use_text(text)


@FUZZ
@given(words=st.lists(WORDS, max_size=60))
def test_random_words(words):
    use_text(" ".join(words))


@FUZZ
@given(data=damaged([text.encode() for text in TEXTS]))
def test_damaged_prototxt(tmp_path, data):
    path = tmp_path / "net.prototxt"
    path.write_bytes(data)
    try:
        source = load_net(path)
    except ProtoError as error:
        assert str(path) in str(error)
    else:
        assert len(source.layer_lines) == len(source.param.layer)


@FUZZ
@given(text=st.text(max_size=100))
def test_random_text_as_other_messages(text):
    for message in (SolverParameter(), BlobProto()):
        try:
            parse_text(message, text)
        except ProtoError as error:
            assert str(error).startswith("Failed to parse")
