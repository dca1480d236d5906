"""What all readers promise: the same batches whatever the threads do, and a place in the data that can be saved."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np
import pytest

from pycaffe import parallel, rng
from pycaffe.errors import DataError
from pycaffe.layers._reader import ReaderLayer
from pycaffe.net import TRAIN, Net
from pycaffe.proto import schema
from tests.layers.case import build

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 6, 8), np.uint8)  # (N, C, H, W)

LAYERS = {
    "Data": 'top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: 3 PREFETCH } '
    "transform_param { crop_size: 4 mirror: true }",
    "ImageData": 'top: "data" top: "label" image_data_param { source: "list.txt" batch_size: 3 shuffle: true } '
    "data_param { PREFETCH } transform_param { crop_size: 4 mirror: true }",
    "HDF5Data": 'top: "data" top: "label" hdf5_data_param { source: "h5.txt" batch_size: 3 shuffle: true } '
    "data_param { PREFETCH }",
    "WindowData": 'top: "data" top: "label" window_data_param { source: "windows.txt" batch_size: 3 fg_fraction: 0.4 } '
    "data_param { PREFETCH } transform_param { crop_size: 4 mirror: true }",
    "DummyData": 'top: "data" top: "label" dummy_data_param { shape { dim: 2 dim: 3 } '
    'data_filler { type: "gaussian" } data_filler { type: "gaussian" sparse: 1 } }',
    "MemoryData": 'top: "data" top: "label" memory_data_param { batch_size: 1 channels: 3 height: 6 width: 8 }',
}
AHEAD = ["Data", "ImageData", "HDF5Data", "WindowData"]


@pytest.fixture(autouse=True)
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with lmdb.open("db", map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for label, image in enumerate(IMAGES):
            datum = schema.Datum(channels=3, height=6, width=8, data=image.tobytes(), label=label)
            transaction.put(b"%08d" % label, datum.SerializeToString())
    for label, image in enumerate(IMAGES):
        cv2.imwrite(f"{label}.png", image.transpose(1, 2, 0))
    Path("list.txt").write_text("".join(f"{label}.png {label}\n" for label in range(len(IMAGES))))
    for name, rows in (("a.h5", slice(0, 4)), ("b.h5", slice(4, 7))):
        with h5py.File(name, "w") as file:
            file["data"], file["label"] = IMAGES[rows].astype(np.float32), np.arange(7, dtype=np.float32)[rows]
    Path("h5.txt").write_text("a.h5\nb.h5\n")
    Path("windows.txt").write_text(
        "".join(f"# {i}\n{i}.png\n3\n6\n8\n2\n{i + 1} 0.9 1 1 5 4\n0 0.1 0 2 6 5\n" for i in range(len(IMAGES)))
    )


@pytest.fixture
def no_threads_left() -> Iterator[None]:
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("pycaffe-prefetch"):
            thread.join(10)
            assert not thread.is_alive()


def reader(layer_type: str, prefetch: int = 4) -> tuple[Net, Any]:
    param = LAYERS[layer_type].replace("PREFETCH", f"prefetch: {prefetch}")
    net = build(f'layer {{ name: "l" type: "{layer_type}" {param} }}', phase=TRAIN)
    if layer_type == "MemoryData":
        net.set_input_arrays(IMAGES.astype(np.float32), np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1))
    (layer,) = net.layers
    assert isinstance(layer, ReaderLayer)
    return net, layer


def batches(net: Net, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    result = []
    for _ in range(count):
        net.forward()
        result.append((net.blobs["data"].data.copy(), net.blobs["label"].data.copy()))
    return result


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_a_restored_reader_goes_on_bit_for_bit(layer_type: str, taken: int, no_threads_left: None) -> None:
    rng.seed(1)
    net, layer = reader(layer_type)
    batches(net, taken)
    state = json.loads(json.dumps(layer.state()))
    want = batches(net, 6)
    np.testing.assert_equal(len({data.tobytes() for data, _ in want}), 6)
    rng.seed(2)
    other, other_layer = reader(layer_type)
    batches(other, 2)
    other_layer.restore(state)
    np.testing.assert_equal(batches(other, 6), want)
    layer.restore(state)
    assert layer.state() == state
    np.testing.assert_equal(batches(net, 6), want)


@pytest.mark.parametrize("layer_type", AHEAD)
def test_chosen_batches_are_those_of_a_reader_of_all(layer_type: str, no_threads_left: None) -> None:
    rng.seed(1)
    want = batches(reader(layer_type)[0], 9)
    rng.seed(1)
    net, layer = reader(layer_type)
    batches(net, 2)
    layer.choose(iter([12, 15, 16]), position=12)
    np.testing.assert_equal(batches(net, 2), [want[2], want[5]])
    place = json.loads(json.dumps(layer.state()))
    assert place["position"] == 16
    np.testing.assert_equal(batches(net, 1), [want[6]])
    rng.seed(2)
    other, other_layer = reader(layer_type)
    other_layer.restore(place["source"])
    np.testing.assert_equal(batches(other, 3), want[6:9])
    layer.restore(place)
    layer.choose(iter([0, 2]), position=0)
    np.testing.assert_equal(batches(net, 2), [want[6], want[8]])


@pytest.mark.parametrize("layer_type", LAYERS)
def test_a_state_of_something_else_is_an_error_and_changes_nothing(layer_type: str, no_threads_left: None) -> None:
    rng.seed(1)
    net, layer = reader(layer_type)
    batches(net, 2)
    state = layer.state()
    with pytest.raises(DataError, match=rf"Layer 'l' \({layer_type}\) cannot go on reading: the saved state"):
        layer.restore({"key": "zz", "order": None})
    want = batches(net, 2)
    layer.restore(state)
    np.testing.assert_equal(batches(net, 2), want)


@pytest.mark.parametrize("layer_type", AHEAD)
def test_batches_do_not_depend_on_how_many_are_read_ahead(
    layer_type: str, monkeypatch: pytest.MonkeyPatch, no_threads_left: None
) -> None:
    runs = []
    for prefetch, cores in ((0, 1), (1, 1), (4, 1), (7, 5)):
        monkeypatch.setattr("pycaffe.data.prefetch.available_cores", lambda cores=cores: cores)
        rng.seed(3)
        net, _ = reader(layer_type, prefetch)
        before = set(threading.enumerate())
        runs.append(batches(net, 20))
        assert len({*threading.enumerate()} - before) == min(prefetch, cores)
        del net, _
        gc.collect()
    for run in runs[1:]:
        np.testing.assert_equal(run, runs[0])


@pytest.mark.parametrize("layer_type", ["Data", "HDF5Data"])
def test_solvers_that_train_together_share_the_records(
    layer_type: str, monkeypatch: pytest.MonkeyPatch, no_threads_left: None
) -> None:
    monkeypatch.setitem(LAYERS, layer_type, LAYERS[layer_type].replace("shuffle: true", ""))
    labels = []
    for rank in range(2):
        monkeypatch.setattr(parallel, "solver_count", lambda: 2)
        monkeypatch.setattr(parallel, "solver_rank", lambda rank=rank: rank)
        net, _ = reader(layer_type)
        labels.append(np.concatenate([label for _, label in batches(net, 3)]))
    np.testing.assert_array_equal(np.stack(labels, axis=1).ravel(), np.arange(18) % 7)


def test_a_database_without_the_record_is_an_error(no_threads_left: None) -> None:
    net, layer = reader("Data")
    batches(net, 1)
    state = layer.state() | {"key": b"elsewhere".hex()}
    with pytest.raises(DataError, match="'db' has no record 'elsewhere', after which reading should go on"):
        layer.restore(state)


def test_an_error_reaches_the_pass_that_needs_the_batch_and_the_next_goes_on(no_threads_left: None) -> None:
    Path("3.png").write_bytes(b"no image")
    net = build(
        'layer { name: "l" type: "ImageData" top: "data" top: "label" '
        'image_data_param { source: "list.txt" batch_size: 2 } }'
    )
    labels = []
    for step in range(5):
        if step == 1:
            with pytest.raises(DataError, match=r"Could not load 3.png.*In test.prototxt:\d+, layer 'l'"):
                net.forward()
        else:
            labels += batches(net, 1)[0][1].tolist()
    assert labels == [0, 1, 4, 5, 6, 0, 1, 2]


def test_a_view_of_a_top_shows_the_next_batch(no_threads_left: None) -> None:
    net, _ = reader("Data")
    net.forward()
    view = net.blobs["label"].data
    assert view.tolist() == [0, 1, 2]
    net.forward()
    assert view.tolist() == [3, 4, 5]


def run_alone(script: str) -> None:
    """In an interpreter of its own: a fork of the one that runs the tests would inherit its threads."""
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n" + textwrap.dedent(script)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


@pytest.mark.parametrize("layer_type", AHEAD)
def test_a_forked_child_starts_threads_of_its_own_where_the_parent_was(layer_type: str) -> None:
    run_alone(f"""
        import os, signal
        import numpy as np
        from tests.layers.test_reader import batches, reader
        from pycaffe import rng
        rng.seed(1)
        net, layer = reader({layer_type!r})
        batches(net, 2)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            os.write(writing, np.concatenate([data for data, _ in batches(net, 4)]).tobytes())
            sys.exit(0)
        os.close(writing)
        with open(reading, "rb") as stream:
            of_child = stream.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert of_child == np.concatenate([data for data, _ in batches(net, 4)]).tobytes()
    """)


def test_the_interpreter_ends_while_threads_read_ahead() -> None:
    run_alone("""
        from tests.layers.test_reader import batches, reader
        nets = [reader(kind) for kind in ("Data", "ImageData", "HDF5Data")]
        for net, _ in nets:
            batches(net, 1)
    """)
