"""The wire scanner: encodings, and bytes that lie."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from pycaffe.proto.schema import BlobProto, LayerParameter, NetParameter, V1LayerParameter
from pycaffe.proto.wire import NumberRun, WireError, fields, scan_blob, scan_net


def scan(blob: bytes):
    return scan_blob(blob, 0, len(blob))


def test_packed_floats():
    data = BlobProto(data=[1, 2, 3, 4, 5, 6], shape={"dim": [2, 3]}).SerializeToString()
    span = scan(data)
    assert (span.shape, span.legacy, span.stored) == ((2, 3), False, 6)
    assert span.runs == [NumberRun(2, 6, "<f4", 4)]
    assert struct.unpack_from("<6f", data, 2) == (1, 2, 3, 4, 5, 6)


def test_unpacked_floats_are_one_run():
    blob = b"".join(b"\x2d" + struct.pack("<f", value) for value in range(1000)) + b"\x3a\x04\x0a\x02\xe8\x07"
    span = scan(blob)
    assert span.shape == (1000,)
    assert span.runs == [NumberRun(1, 1000, "<f4", 5)]


@pytest.mark.parametrize("count", [1, 2, 8, 9, 10, 73, 585, 4700])
def test_a_run_ends_where_the_tag_changes(count):
    blob = (
        b"".join(b"\x2d" + struct.pack("<f", value) for value in range(count)) + b"\x35" + bytes(4) + b"\x2d" + bytes(4)
    )
    assert [(item.number, item.repeats) for item in fields(blob, 0, len(blob))] == [(5, count), (6, 1), (5, 1)]
    assert scan(blob).stored == count + 1


def test_packed_in_two_pieces():
    blob = b"\x2a\x04" + struct.pack("<f", 1) + b"\x2a\x08" + struct.pack("<2f", 2, 3)
    assert scan(blob).runs == [NumberRun(2, 1, "<f4", 4), NumberRun(8, 2, "<f4", 4)]


def test_doubles_win_over_floats_and_floats_over_raw_data():
    blob = BlobProto(data=[1], double_data=[2, 3], raw_data=b"1234", raw_data_type=2)
    assert scan(blob.SerializeToString()).runs[0].dtype == "<f8"
    blob.ClearField("double_data")
    assert scan(blob.SerializeToString()).runs[0].dtype == "<f4"
    blob.ClearField("data")
    assert scan(blob.SerializeToString()).runs[0] == NumberRun(4, 2, "<f2", 2)


def test_legacy_shape_wins():
    blob = BlobProto(num=1, channels=3, height=4, shape={"dim": [9]})
    assert (scan(blob.SerializeToString()).shape, scan(blob.SerializeToString()).legacy) == ((1, 3, 4, 0), True)


def test_three_formats_of_layers():
    net = NetParameter()
    net.layers.add(name="v1").blobs.add(data=[1])
    net.layers.add(layer={"name": "v0", "blobs": [{"data": [1, 2]}]})
    net.layer.add(name="v2", type="ReLU").blobs.add(data=[1, 2, 3])
    found = [(layer.name, [blob.stored for blob in layer.blobs]) for layer in scan_net(net.SerializeToString())]
    assert found == [("v1", [1]), ("v0", [2]), ("v2", [3])]


def test_names_that_are_no_utf8():
    layer = b"\x0a\x03a\xffb"
    assert [item.name for item in scan_net(b"\xa2\x06" + bytes([len(layer)]) + layer)] == ["aÿb"]


def test_fields_of_forks_are_skipped():
    layer = LayerParameter(name="x").SerializeToString()
    unknown = (
        b"\xf8\x07\x05"
        + b"\xfa\x07\x02hi"
        + b"\xfd\x07abcd"
        + b"\xf9\x07abcdefgh"
        + b"\xfb\x07\x08\x01\x13\x14\xfc\x07"
    )
    layer += unknown + BlobProto(data=[7]).SerializeToString().join([b"\x3a\x06", b""])
    found = list(scan_net(unknown + b"\xa2\x06" + bytes([len(layer)]) + layer))
    assert [(item.name, item.blobs[0].stored) for item in found] == [("x", 1)]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"\x2a\x08" + bytes(4), r"says that it has 8 bytes at byte 2, where 4 are left"),
        (b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", r"says that it has 9223372036854775807 bytes"),
        (b"\x2a\x05" + bytes(5), r"5 bytes at byte 2 are no whole number of 4-byte numbers"),
        (b"\x2d\x00\x00", r"ends within a number, at byte 3"),
        (b"\x2a", r"ends within a number"),
        (b"\x08" + b"\xff" * 10, r"no valid number at byte 1"),
        (b"\x00", r"no valid field at byte 0"),
        (b"\x2e", r"no valid field at byte 0"),
        (b"\x08\xff\xff\xff\xff\x0f", r"a negative dimension in shape \[-1, 0, 0, 0\]"),
        (b"\x3a\x23\x0a\x21" + b"\x01" * 33, r"a shape of more than 32 axes"),
        (b"\x3a\x42" + b"\x08\x01" * 33, r"a shape of more than 32 axes"),
        (b"\x62\x04abcd\x50\x03", r"raw_data of type 3 is not supported"),
        (b"\x0b" * 200, r"groups are nested too deeply"),
        (b"\x0b\x0d\x00", r"ends within a field, at byte 3"),
    ],
)
def test_bytes_that_lie(blob, message):
    with pytest.raises(WireError, match=message):
        scan(blob)


def test_an_error_names_layer_and_blob():
    layer = b"\x0a\x03fc6" + b"\x3a\x00" + b"\x3a\x03\x2a\x09\x00"
    with pytest.raises(
        WireError, match=r"^layer 'fc6', blob 1: a field says that it has 9 bytes at byte \d+, where 1 are"
    ):
        list(scan_net(b"\xa2\x06" + bytes([len(layer)]) + layer))
    with pytest.raises(WireError, match=r"^layer number 1, blob 0: "):
        list(scan_net(b"\xa2\x06\x00\xa2\x06\x02\x3a\x05"))


def test_agrees_with_protobuf_on_random_messages():
    rng = np.random.default_rng(0)
    for _ in range(50):
        net = NetParameter(name="n")
        for i in range(rng.integers(0, 4)):
            layer = net.layer.add(name=f"l{i}", top=["t"])
            for _ in range(rng.integers(0, 3)):
                shape = rng.integers(0, 4, rng.integers(0, 4)).tolist()
                layer.blobs.add(data=rng.standard_normal(int(np.prod(shape))), shape={"dim": shape})
        data = net.SerializeToString()
        for layer, span in zip(net.layer, scan_net(data), strict=True):
            assert span.name == layer.name and len(span.blobs) == len(layer.blobs)
            for blob, found in zip(layer.blobs, span.blobs):
                assert found.shape == tuple(blob.shape.dim) and found.stored == len(blob.data)
                for run in found.runs:
                    assert np.array_equal(np.frombuffer(data, "<f4", run.count, run.offset), np.float32(blob.data))


def test_v1_and_v2_numbers_are_those_of_the_schema():
    assert LayerParameter.DESCRIPTOR.fields_by_name["blobs"].number == 7
    assert V1LayerParameter.DESCRIPTOR.fields_by_name["blobs"].number == 6
