"""Weights files: read as protobuf reads them, written as reference Caffe writes them, refused where they lie."""

from __future__ import annotations

import os
import pathlib
import pickle
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from pycaffe.errors import ProtoError, WeightsError
from pycaffe.proto.caffemodel import read_blob, read_weights, write_blob, write_hdf5, write_weights
from pycaffe.proto.schema import BlobProto, NetParameter, SolverState

DATA = pathlib.Path(__file__).resolve().parents[1] / "golden" / "data"
SNAPSHOTS = DATA / "snapshots"
RNG = np.random.default_rng(1)


def save(path: pathlib.Path, *layers: tuple[str, list[BlobProto]]) -> pathlib.Path:
    net = NetParameter(name="net")
    for name, blobs in layers:
        net.layer.add(name=name, type="X").blobs.extend(blobs)
    path.write_bytes(net.SerializeToString())
    return path


def blob_of(values: np.ndarray) -> BlobProto:
    return BlobProto(data=values.ravel(), shape={"dim": values.shape})


@pytest.fixture
def model(tmp_path):
    values = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    return save(
        tmp_path / "net.caffemodel", ("conv", [blob_of(values), blob_of(values[0, 0, 0])]), ("relu", [])
    ), values


@pytest.mark.parametrize("map_weights", [True, False])
def test_reads_packed_floats(model, map_weights):
    path, values = model
    weights = read_weights(path, map_weights=map_weights)
    assert list(weights.layers) == ["conv", "relu"] and weights.layers["relu"] == []
    kernel, bias = weights.layers["conv"]
    assert (kernel.shape, kernel.count, kernel.legacy) == ((2, 3, 4, 5), 120, False)
    assert kernel.data().dtype == np.float32
    assert np.array_equal(kernel.data(), values) and np.array_equal(bias.data(), values[0, 0, 0])


@pytest.mark.parametrize("map_weights", [True, False])
def test_arrays_are_writable_views_and_the_file_stays(model, map_weights):
    path, values = model
    before = path.read_bytes()
    weights = read_weights(path, map_weights=map_weights)
    array = weights.layers["conv"][0].data()
    array[...] = 7
    assert weights.layers["conv"][0].data()[1, 2, 3, 4] == 7  # a view, not a copy
    assert path.read_bytes() == before
    assert np.array_equal(read_weights(path).layers["conv"][0].data(), values)


def test_arrays_outlive_the_weights_and_the_file(model):
    path, values = model
    array = read_weights(path).layers["conv"][0].data()
    if os.name != "nt":
        path.unlink()
    assert np.array_equal(array, values)


def test_other_encodings(tmp_path):
    values = RNG.standard_normal((3, 5)).astype(np.float32)
    half = values.astype(np.float16)
    unpacked = b"".join(b"\x2d" + value.tobytes() for value in values.ravel())
    path = save(
        tmp_path / "net.caffemodel",
        ("double", [BlobProto(double_data=values.ravel(), shape={"dim": [3, 5]})]),
        ("half", [BlobProto(raw_data=half.tobytes(), raw_data_type=2, shape={"dim": [3, 5]})]),
        ("raw", [BlobProto(raw_data=values.tobytes(), raw_data_type=1, shape={"dim": [5, 3]})]),
        ("legacy", [BlobProto(data=values.ravel(), num=1, channels=1, height=3, width=5)]),
        ("scalar", [BlobProto(data=[2.5])]),
        ("empty", [BlobProto(shape={"dim": [0, 4]})]),
    )
    shape = b"\x3a\x04\x0a\x02\x03\x05"
    layer = b"\x0a\x06single\x3a" + bytes([len(unpacked + shape)]) + unpacked + shape
    path.write_bytes(path.read_bytes() + b"\xa2\x06" + bytes([len(layer)]) + layer)
    layers = {name: blobs[0] for name, blobs in read_weights(path).layers.items()}
    assert np.array_equal(layers["double"].data(), values)
    assert np.array_equal(layers["half"].data(), half.astype(np.float32))
    assert np.array_equal(layers["raw"].data(), values.reshape(5, 3))
    assert np.array_equal(layers["legacy"].data(), values.reshape(1, 1, 3, 5)) and layers["legacy"].legacy
    assert layers["scalar"].data().shape == () and layers["scalar"].data() == 2.5
    assert layers["empty"].data().shape == (0, 4)
    assert np.array_equal(layers["single"].data(), values)
    assert all(blob.data().dtype == np.float32 and blob.data().flags.writeable for blob in layers.values())


def test_which_shapes_fit(tmp_path):
    path = save(
        tmp_path / "net.caffemodel",
        ("old", [BlobProto(data=[0] * 6, num=1, channels=1, height=2, width=3)]),
        ("new", [BlobProto(data=[0] * 6, shape={"dim": [1, 1, 2, 3]})]),
    )
    old, new = (blobs[0] for blobs in read_weights(path).layers.values())
    assert old.fits((2, 3)) and old.fits((1, 2, 3)) and old.fits([1, 1, 2, 3])
    assert not old.fits((3, 2)) and not old.fits((6,)) and not old.fits((1, 1, 1, 2, 3))
    assert new.fits((1, 1, 2, 3)) and not new.fits((2, 3))


def test_formats_before_2015(tmp_path):
    net = NetParameter()
    net.layers.add(name="v1").blobs.add(data=[1, 2], num=1, channels=1, height=1, width=2)
    net.layers.add(layer={"name": "v0", "blobs": [{"data": [3], "num": 1, "channels": 1, "height": 1, "width": 1}]})
    (tmp_path / "old").write_bytes(net.SerializeToString())
    layers = read_weights(tmp_path / "old").layers
    assert layers["v1"][0].data().tolist() == [[[[1, 2]]]] and layers["v0"][0].data().tolist() == [[[[3]]]]


def test_the_later_of_two_layers_counts(tmp_path):
    one, two = BlobProto(data=[1]), BlobProto(data=[2])
    path = save(tmp_path / "net", ("a", [one]), ("a", [two]), ("a", []))
    assert read_weights(path).layers["a"][0].data() == 2


# ---------- files that cannot be used


def refuse(path: pathlib.Path | str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_every_truncation_of_a_file_is_refused_or_whole(model, tmp_path):
    data = model[0].read_bytes()
    whole_at = {5, len(data)}  # after the net's name, and at the end
    whole_at.add(len(data) - 3 - len(b"\x0a\x04relu\x12\x01X"))
    for size in range(1, len(data)):
        path = tmp_path / "cut.caffemodel"
        path.write_bytes(data[:size])
        if size in whole_at:
            continue
        refuse(path, "Failed to parse NetParameter file: .*(truncated or damaged|text)")


def test_truncated_names_the_layer(model, tmp_path):
    path = tmp_path / "cut.caffemodel"
    path.write_bytes(model[0].read_bytes()[:200])
    refuse(path, r"truncated or damaged: a field says that it has \d+ bytes at byte \d+, where \d+ are left")


def test_lying_shape(tmp_path):
    path = save(tmp_path / "net", ("fc", [BlobProto(data=[1, 2, 3], shape={"dim": [10**9, 10**9]})]), ("b", []))
    blob = read_weights(path).layers["fc"][0]
    assert blob.count == 10**18
    with pytest.raises(
        WeightsError, match=r"blob 0 of layer 'fc' in .*net: its shape \(1000000000, .* the file holds 3"
    ):
        blob.data()
    path = save(tmp_path / "net", ("fc", [BlobProto(shape={"dim": [4]})]))
    with pytest.raises(WeightsError, match="stands for 4 values, the file holds 0"):
        read_weights(path).layers["fc"][0].data()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'name: "net"\nlayer { name: "x" type: "ReLU" }\n',
            r"text, not a binary file\. Are model and weights swapped\?",
        ),
        (b"# a comment only", "text, not a binary file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git-lfs pointer"),
        (b"\n<!DOCTYPE html><html></html>", "web page"),
        (b"", "is empty"),
        (b"\x0a\x03net", "it holds no layers"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "truncated or damaged"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "truncated, damaged or no HDF5 file"),
    ],
)
def test_something_else(tmp_path, content, message):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    refuse(path, message)


def test_missing_and_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refuse("net.caffemodel", r"Could not open file net\.caffemodel \(File not found\).*working directory")
    refuse("net.caffemodel.h5", "File not found")
    refuse(tmp_path, "it is a folder")
    with pytest.raises(WeightsError, match="Could not open file"):
        read_weights("a\0b")


# ---------- HDF5


def test_reads_the_originals_hdf5():
    weights = read_weights(SNAPSHOTS / "sgd_hdf5_iter_5.caffemodel.h5")
    binary = read_weights(SNAPSHOTS / "sgd_binaryproto_iter_5.caffemodel")
    assert weights.layers["ip1"][0].shape == (6, 24) and weights.layers["data"] == []
    for name, blobs in weights.layers.items():
        assert [blob.shape for blob in blobs] == [blob.shape for blob in binary.layers[name]]
        for blob in blobs:
            assert blob.data().dtype == np.float32 and blob.data().flags.writeable


def test_hdf5_round_trip(tmp_path):
    path = tmp_path / "net.caffemodel.h5"
    kernel = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)
    layers = [("inception/1x1", [kernel, kernel[0, 0, 0]]), ("inception", [kernel[1]]), ("shared", [None, kernel[0]])]
    write_hdf5(path, [*layers, ("relu", [])], [(name, [kernel * 2] * len(blobs)) for name, blobs in layers])
    weights = read_weights(path)
    assert sorted(weights.layers) == ["inception", "inception/1x1", "relu", "shared"]
    assert np.array_equal(weights.layers["inception/1x1"][0].data(), kernel)
    assert weights.layers["shared"][0] is None
    assert np.array_equal(weights.layers["shared"][1].data(), kernel[0])
    with h5py.File(path) as file:
        assert list(file) == ["data", "diff"]
        assert file["data/inception/1x1/0"].dtype == np.dtype("<f4")
        assert np.array_equal(file["diff/shared/0"], kernel * 2)


def test_hdf5_is_written_as_the_original_writes_it(tmp_path):
    theirs = SNAPSHOTS / "sgd_hdf5_iter_5.caffemodel.h5"
    weights = read_weights(theirs)
    write_hdf5(
        tmp_path / "ours.h5", [(name, [blob.data() for blob in blobs]) for name, blobs in weights.layers.items()]
    )
    with h5py.File(theirs) as expected, h5py.File(tmp_path / "ours.h5") as ours:
        found: dict[str, object] = {}
        ours.visititems(lambda name, item: found.update({name: item}))
        count = 0

        def compare(name, item):
            nonlocal count
            count += 1
            assert type(found[name]) is type(item)
            if isinstance(item, h5py.Dataset):
                assert found[name].dtype == item.dtype and np.array_equal(found[name], item)

        expected.visititems(compare)
        assert count == len(found) > 5


def test_hdf5_files_that_cannot_be_used(tmp_path):
    path = tmp_path / "net.h5"
    with h5py.File(path, "w") as file:
        file["other"] = [1.0]
    refuse(path, "has no group 'data'")
    with h5py.File(path, "w") as file:
        file["data/conv/weights"] = [1.0]
    refuse(path, "'conv/weights' is no blob of a layer")
    with h5py.File(path, "w") as file:
        file["data/conv/0"] = b"text"
    refuse(path, "blob 0 of layer 'conv' .*Unsupported datatype class")
    with h5py.File(path, "w") as file:
        file["data/conv/9999999"] = [1.0]
    refuse(path, "blob number 9999999")
    with h5py.File(path, "w") as file:
        file.create_group("data/conv").create_dataset("0", (1 << 40,), "f4", chunks=(1024,))
    refuse(path, r"it says shape \(1099511627776,\), more than the file can hold")
    theirs = (SNAPSHOTS / "sgd_hdf5_iter_5.caffemodel.h5").read_bytes()
    path.write_bytes(theirs[: len(theirs) // 2])
    refuse(path, "truncated, damaged or no HDF5 file")
    path.write_text("name: 'x'")
    refuse(path, "text, not a binary file")


# ---------- writing


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_writes_the_bytes_of_reference_caffe(tmp_path, solver):
    theirs = SNAPSHOTS / f"{solver}_binaryproto_iter_5.caffemodel"
    net = NetParameter.FromString(theirs.read_bytes())
    weights = read_weights(theirs)
    arrays = [[blob.data() for blob in weights.layers[layer.name]] for layer in net.layer]
    assert sum(array.size for blobs in arrays for array in blobs) == 213
    write_weights(tmp_path / "with_blobs", net)
    for layer in net.layer:
        layer.ClearField("blobs")
    write_weights(tmp_path / "ours", net, arrays)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "with_blobs").read_bytes() == theirs.read_bytes()


def test_diffs_and_odd_arrays(tmp_path):
    net = NetParameter(name="n")
    net.layer.add(name="a", type="X", phase=1).blobs.add(data=[9])
    arrays = [np.arange(6.0).reshape(2, 3).T, np.float64(2.5), np.zeros((0, 4))]
    write_weights(tmp_path / "w", net, [arrays], [[np.ones((3, 2)), 1, np.zeros((0, 4))]])
    back = NetParameter.FromString((tmp_path / "w").read_bytes())
    first, scalar, empty = back.layer[0].blobs
    assert list(first.data) == [0, 3, 1, 4, 2, 5] and list(first.diff) == [1] * 6 and list(first.shape.dim) == [3, 2]
    assert list(scalar.data) == [2.5] and not scalar.HasField("shape")
    assert list(empty.shape.dim) == [0, 4] and not empty.data
    assert back.layer[0].phase == 1 and back.SerializeToString() == (tmp_path / "w").read_bytes()


def test_writing_over_a_mapped_file(model):
    path, values = model
    weights = read_weights(path)
    array = weights.layers["conv"][0].data()
    net = NetParameter(name="n")
    net.layer.add(name="conv")
    write_weights(path, net, [[array * 2]])
    assert np.array_equal(array, values)
    assert np.array_equal(read_weights(path).layers["conv"][0].data(), values * 2)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file(model):
    path, _ = model
    before = path.read_bytes()
    net = NetParameter()
    net.layer.add(name="a")
    with pytest.raises(ValueError):
        write_weights(path, net, [["no numbers"]])
    with pytest.raises(ValueError):
        write_hdf5(path, [("a", ["no numbers"])])
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_places_that_cannot_be_written(tmp_path):
    for write in (lambda path: write_weights(path, NetParameter()), lambda path: write_hdf5(path, [])):
        with pytest.raises(WeightsError, match=r"Couldn't open .*no/file to save weights"):
            write(tmp_path / "no" / "file")
    with pytest.raises(ProtoError, match=r"Could not open file .*no/file"):
        write_blob(tmp_path / "no" / "file", [1.0])


def test_a_link_is_followed(tmp_path, model):
    (tmp_path / "link").symlink_to(model[0])
    write_hdf5(tmp_path / "link", [("a", [[1.0]])])
    assert (tmp_path / "link").is_symlink() and read_weights(model[0]).layers["a"][0].data() == [1]


# ---------- single blobs


def test_mean_file_of_the_original():
    blob = BlobProto.FromString((DATA / "mean.binaryproto").read_bytes())
    mean = read_blob(DATA / "mean.binaryproto")
    assert mean.shape == (blob.num, blob.channels, blob.height, blob.width)
    assert np.array_equal(mean.ravel(), np.float32(blob.data)) and mean.size > 1


def test_blob_round_trip(tmp_path):
    values = RNG.standard_normal((1, 3, 4, 5)).astype(np.float32)
    write_blob(tmp_path / "mean.binaryproto", values)
    assert np.array_equal(read_blob(tmp_path / "mean.binaryproto"), values)
    assert (tmp_path / "mean.binaryproto").read_bytes() == blob_of(values).SerializeToString()


def test_blobs_that_cannot_be_read(tmp_path):
    path = tmp_path / "mean.binaryproto"
    for content, message in [
        (b"", "is empty"),
        (b"text", "it is text"),
        (b"\x08\x01", "it holds no numbers"),
        (b"\x2a\x08\x00\x00", "says that it has 8 bytes"),
        (b"\x2a\x04\x00\x00\x00\x00\x08\x03", r"its shape \(3, 0, 0, 0\) stands for 0 values, the file holds 1"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ProtoError, match=message):
            read_blob(path)
    with pytest.raises(ProtoError, match="File not found"):
        read_blob(tmp_path / "none")


# ---------- size


def test_a_large_file_is_mapped_in_no_time(tmp_path):
    """244 MB in 8 layers, CaffeNet's size: under 100 ms, and the pages are not read."""
    path = tmp_path / "big.caffemodel"
    net = NetParameter(name="big")
    for i in range(8):
        net.layer.add(name=f"l{i}", type="InnerProduct")
    big = np.zeros((1907, 4000), np.float32)
    write_weights(path, net, [[big, big[0]]] * 8)
    assert path.stat().st_size > 244e6
    best = min(_seconds_to_map(path) for _ in range(3))
    path.unlink()
    assert best < 0.1


def _seconds_to_map(path: pathlib.Path) -> float:
    start = time.perf_counter()
    arrays = [blob.data() for blobs in read_weights(path).layers.values() for blob in blobs]
    seconds = time.perf_counter() - start
    assert len(arrays) == 16
    return seconds


def test_h5py_is_imported_only_where_needed():
    code = "import sys, pycaffe.proto.caffemodel; print('h5py' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(DATA.parents[2] / "src")}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    assert done.stdout == "False\n"


def test_a_solver_state_is_not_its_weights(tmp_path):
    state = SolverState(iter=3, learned_net="a.caffemodel")
    state.history.add(data=np.ones(8, np.float32)).shape.dim.append(8)
    (tmp_path / "a.solverstate").write_bytes(state.SerializeToString())
    with pytest.raises(WeightsError, match=r"it is a solver state; the weights are in the \.caffemodel beside it"):
        read_weights(tmp_path / "a.solverstate")
