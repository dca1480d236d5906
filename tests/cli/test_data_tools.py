"""The verbs that are the original's tools about data and formats."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe.cli import main
from pycaffe.data import datum_to_array, open_database, parse_datum
from pycaffe.data.mean import read_mean
from pycaffe.data.open_database import LEVELDB, LMDB
from pycaffe.proto import schema
from tests.data.sources import enter_sources
from tests.layers.case import GOLDEN

GLOG = re.compile(r"^[IWE]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ ([a-z_]+\.cpp:\d+)\] (.*)$")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


def run(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> list[tuple[str, ...]]:
    """The place and text of each log line on stderr; the text alone of other lines."""
    with pytest.raises(SystemExit) as caught:
        main(args)
    lines = capsys.readouterr().err.splitlines()
    assert caught.value.code == status, lines
    return [match.groups() if (match := GLOG.match(line)) else (line,) for line in lines]


def records(path: str, backend: int = LMDB) -> dict[bytes, object]:
    return {key: parse_datum(value, "r") for key, value in open_database(path, backend).once()}


def test_convert_imageset_then_compute_image_mean(capsys: pytest.CaptureFixture[str]) -> None:
    args = [
        "-resize_height=32",
        "--resize_width",
        "30",
        "--shuffle=false",
        "--backend=leveldb",
        "./",
        "list.txt",
        "own",
    ]
    assert run(capsys, "convert_imageset", *args) == [
        ("convert_imageset.cpp:89", "A total of 7 images."),
        ("convert_imageset.cpp:153", "Processed 7 files."),
    ]
    got, want = records("own", LEVELDB), records("sized_leveldb", LEVELDB)
    assert list(got) == list(want)
    lines = run(capsys, "compute_image_mean", "--backend", "leveldb", "own", "own.binaryproto")
    mean = read_mean("own.binaryproto")
    np.testing.assert_allclose(mean, read_mean("mean.binaryproto"), atol=0.5)  # a JPEG is among the images
    assert lines == [
        ("compute_image_mean.cpp:70", "Starting iteration"),
        ("compute_image_mean.cpp:101", "Processed 7 files."),
        ("compute_image_mean.cpp:108", "Write to own.binaryproto"),
        ("compute_image_mean.cpp:114", "Number of channels: 3"),
        *(("compute_image_mean.cpp:119", f"mean_value channel [{c}]: {mean[c].mean(dtype=float):g}") for c in range(3)),
    ]
    assert run(capsys, "compute_image_mean", "gray_encoded_lmdb")[0] == ("compute_image_mean.cpp:57", "Decoding Datum")


def test_convert_imageset_flags(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run(capsys, "convert_imageset", "--gray", "-encoded", "--encode_type=png", "", "list.txt", "own")
    assert lines[-1] == ("convert_imageset.cpp:153", "Processed 7 files.")
    # The last is a JPEG, made anew; the others are stored as they are, and the last but one is grey.
    assert [datum_to_array(datum, "r").shape[0] for datum in records("own").values()] == [3] * 5 + [1] * 2
    (error,) = run(capsys, "convert_imageset", "--check_size", "", "list.txt", "x", status=2)[-1]
    assert error.startswith("Error: Incorrect data field size")
    assert not os.path.exists("x")
    assert run(capsys, "convert_imageset", "", "list.txt", status=2)[-1] == ("Error: Missing argument 'DB_NAME'.",)


NET = """
layer { name: "d" type: "Data" top: "data" top: "label"
  data_param { source: "sized_lmdb" backend: LMDB batch_size: 4 } }
layer { name: "p" type: "Pooling" bottom: "data" top: "pooled" pooling_param { kernel_size: 8 stride: 8 pool: AVE } }
layer { name: "ip" type: "InnerProduct" bottom: "pooled" top: "ip"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
"""


def test_extract_features(capsys: pytest.CaptureFixture[str]) -> None:
    from pycaffe.net import TEST, Net

    Path("net.prototxt").write_text(NET)
    net = Net("net.prototxt", TEST)
    net.save("net.caffemodel")
    lines = run(capsys, "extract_features", "net.caffemodel", "net.prototxt", "pooled,ip", "a,b", "3", "leveldb", "CPU")
    assert lines == [
        ("extract_features.cpp:62", "Using CPU"),
        ("extract_features.cpp:125", "Opening dataset a"),
        ("extract_features.cpp:125", "Opening dataset b"),
        ("extract_features.cpp:133", "Extracting Features"),
        ("extract_features.cpp:176", "Extracted features of 12 query images for feature blob pooled"),
        ("extract_features.cpp:176", "Extracted features of 12 query images for feature blob ip"),
        ("extract_features.cpp:181", "Successfully extracted the features!"),
    ]
    want: dict[str, list[np.ndarray]] = {"pooled": [], "ip": []}
    for _ in range(3):
        net.forward()
        for name, rows in want.items():
            rows.append(net.blobs[name].data.copy())
    for path, name, shape in (("a", "pooled", (3, 4, 4)), ("b", "ip", (5, 1, 1))):
        found = records(path, LEVELDB)
        assert list(found) == [b"%010d" % i for i in range(12)]
        arrays = np.stack([datum_to_array(datum, "r") for datum in found.values()])
        assert arrays.shape[1:] == shape
        np.testing.assert_allclose(arrays.ravel(), np.concatenate(want[name]).ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pooled,ip", "a", "1", "lmdb"], "The number of blob names and dataset names must be equal. Got 2 and 1."),
        (["fc7", "a", "1", "lmdb"], "Unknown feature blob name fc7 in the network net.prototxt"),
        (["ip", "a", "1", "lmdb", "GPU", "x"], "'x' is not the number of a GPU."),
    ],
)
def test_extract_features_with_bad_arguments(capsys: pytest.CaptureFixture[str], args: list[str], message: str) -> None:
    from pycaffe.net import TEST, Net

    Path("net.prototxt").write_text(NET)
    Net("net.prototxt", TEST).save("net.caffemodel")
    lines = run(capsys, "extract_features", "net.caffemodel", "net.prototxt", *args, status=2)
    assert lines[-1] == (f"Error: {message}",)
    assert not os.path.exists("a")


def test_convert_mnist_data(capsys: pytest.CaptureFixture[str]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6), np.uint8)
    Path("images.idx").write_bytes(struct.pack(">4I", 2051, 3, 4, 6) + images.tobytes())
    Path("labels.idx").write_bytes(struct.pack(">2I", 2049, 3) + bytes([7, 0, 9]))
    assert run(capsys, "convert_mnist_data", "-backend=leveldb", "images.idx", "labels.idx", "own") == [
        ("convert_mnist_data.cpp:88", "A total of 3 items."),
        ("convert_mnist_data.cpp:89", "Rows: 4 Cols: 6"),
        ("convert_mnist_data.cpp:108", "Processed 3 files."),
    ]
    found = records("own", LEVELDB)
    assert {key: datum.label for key, datum in found.items()} == {b"00000000": 7, b"00000001": 0, b"00000002": 9}
    np.testing.assert_array_equal([datum_to_array(datum, "r")[0] for datum in found.values()], images)
    (error,) = run(capsys, "convert_mnist_data", "labels.idx", "labels.idx", "x", status=2)[-1]
    assert "Incorrect image file magic. 'labels.idx' has 2049, expected 2051." in error


def test_convert_cifar_data(capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    batches = {name: generator.integers(0, 10, (2, 3073), np.uint8) for name in [*"12345", "test"]}
    for name, rows in batches.items():
        Path("test_batch.bin" if name == "test" else f"data_batch_{name}.bin").write_bytes(rows.tobytes())
    assert run(capsys, "convert_cifar_data", ".", ".", "lmdb") == [
        ("convert_cifar_data.cpp:52", "Writing Training data"),
        *(("convert_cifar_data.cpp:55", f"Training Batch {n}") for n in range(1, 6)),
        ("convert_cifar_data.cpp:73", "Writing Testing data"),
    ]
    train = records("cifar10_train_lmdb")
    assert list(train) == [b"%05d" % i for i in range(10)]
    rows = np.concatenate([batches[name] for name in "12345"])
    assert [datum.label for datum in train.values()] == rows[:, 0].tolist()
    np.testing.assert_array_equal(
        [datum_to_array(datum, "r") for datum in train.values()], rows[:, 1:].reshape(10, 3, 32, 32)
    )
    assert len(records("cifar10_test_lmdb")) == 2


@pytest.mark.parametrize("binary", [False, True])
def test_upgrade_net_proto(capsys: pytest.CaptureFixture[str], binary: bool) -> None:
    from google.protobuf import text_format

    old = GOLDEN.parent / "upgrade" / "v1.prototxt"
    net = text_format.Parse(old.read_text(), schema.NetParameter())
    want = text_format.Parse(old.with_suffix(".upgraded.prototxt").read_text(), schema.NetParameter())
    Path("old").write_bytes(net.SerializeToString() if binary else old.read_bytes())
    tool, kind = ("upgrade_net_proto_binary", "binary") if binary else ("upgrade_net_proto_text", "text")
    wrote = (f"{tool}.cpp:{48 if binary else 49}", f"Wrote upgraded NetParameter {kind} proto to new")
    assert run(capsys, tool, "old", "new") == [wrote]
    data = Path("new").read_bytes()
    got = schema.NetParameter.FromString(data) if binary else text_format.Parse(data, schema.NetParameter())
    assert got == want
    assert run(capsys, tool, "new", "new") == [(f"{tool}.cpp:43", "File already in latest proto format: new"), wrote]
    assert Path("new").read_bytes() == data
    (error,) = run(capsys, tool, "nowhere", "new", status=2)[-1]
    assert "nowhere" in error
    Path("bad").write_bytes(b"\xff\xff\xff")
    assert run(capsys, tool, "bad", "other", status=2)[-1][0].startswith("Error: ")
    assert not os.path.exists("other")


def test_upgrade_solver_proto_text(capsys: pytest.CaptureFixture[str]) -> None:
    Path("old").write_text("base_lr: 0.5 solver_type: ADAGRAD")
    run(capsys, "upgrade_solver_proto_text", "old", "new")
    assert Path("new").read_text() == 'base_lr: 0.5\ntype: "AdaGrad"\n'


def test_what_is_written_encoded_is_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "convert_imageset", "--encoded", "", "list.txt", "own")
    for key, datum in records("own").items():
        np.testing.assert_array_equal(
            cv2.imdecode(np.frombuffer(datum.data, np.uint8), -1), cv2.imread(key[9:].decode(), -1)
        )
