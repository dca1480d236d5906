from __future__ import annotations

import importlib.util
from pathlib import Path

import lmdb
import numpy as np
import pytest

from pycaffe import rng
from pycaffe.errors import DataError, LayerError, NetError
from pycaffe.net import TEST, TRAIN
from pycaffe.proto import schema
from tests.data.sources import enter_sources, run_golden_reader
from tests.layers.case import build

CASES = ["data_gray_encoded", "data_lmdb", "data_mean_file", "data_mean_values", "data_one_top"]
if importlib.util.find_spec("plyvel") is not None:  # it has no wheels for some systems
    CASES.append("data_leveldb")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter_sources(tmp_path, monkeypatch)


def layer(param: str, transform: str = "", tops: str = 'top: "data" top: "label"') -> str:
    return f'layer {{ name: "l" type: "Data" {tops} data_param {{ {param} }} transform_param {{ {transform} }} }}'


def write(source: str, *datums: object) -> None:
    with lmdb.open(source, map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for index, datum in enumerate(datums):
            transaction.put(b"%08d" % index, datum.SerializeToString())


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    run_golden_reader(name)


def test_a_read_only_folder_can_be_read(folder: Path) -> None:
    (folder / "sized_lmdb" / "lock.mdb").mkdir()  # as there: no lock file can be made
    run_golden_reader("data_lmdb", steps=1)


def test_random_crops_stay_in_the_image_and_epochs_keep_their_order() -> None:
    rng.seed(1)
    write(
        "db",
        *(
            schema.Datum(channels=1, height=4, width=6, data=bytes(range(i * 24, i * 24 + 24)), label=i)
            for i in range(3)
        ),
    )
    net = build(layer('source: "db" backend: LMDB batch_size: 2', "crop_size: 3"), phase=TRAIN)
    corners = set()
    for step in range(60):
        net.forward()
        assert net.blobs["label"].data.tolist() == [(2 * step) % 3, (2 * step + 1) % 3]
        for image, label in zip(net.blobs["data"].data, net.blobs["label"].data):
            corner = int(image[0, 0, 0]) - int(label) * 24
            top, left = divmod(corner, 6)
            want = label * 24 + (np.arange(top, top + 3)[:, None] * 6 + np.arange(left, left + 3))
            np.testing.assert_array_equal(image[0], want)
            corners.add((top, left))
    assert corners == {(top, left) for top in range(2) for left in range(4)}


def test_with_batch_size_1_images_may_vary_and_the_net_follows() -> None:
    write(
        "db", *(schema.Datum(channels=2, height=h, width=w, data=bytes([9]) * (2 * h * w)) for h, w in [(3, 4), (5, 2)])
    )
    power = 'layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 2 } }'
    net = build(layer('source: "db" backend: LMDB batch_size: 1') + power)
    for shape in [(1, 2, 3, 4), (1, 2, 5, 2), (1, 2, 3, 4)]:
        net.forward()
        assert net.blobs["p"].data.shape == shape
        np.testing.assert_array_equal(net.blobs["p"].data, 18)


def test_raw_images_keep_their_channels_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    write("db", schema.Datum(channels=3, height=2, width=4, data=bytes(24)))
    for transform, messages in (("force_gray: true", ["force_color and force_gray only for encoded datum"]), ("", [])):
        caplog.clear()
        assert build(layer('source: "db" backend: LMDB batch_size: 2', transform)).blobs["data"].shape == (2, 3, 2, 4)
        assert caplog.messages == messages


def test_forced_colours() -> None:
    for force, channels in (("force_color: true", 3), ("force_gray: true", 1)):
        net = build(layer('source: "gray_encoded_lmdb" backend: LMDB batch_size: 2', force))
        assert net.blobs["data"].shape[:2] == (2, channels)
    with pytest.raises(LayerError, match="cannot set both force_color and force_gray"):
        build(layer('source: "gray_encoded_lmdb" backend: LMDB batch_size: 2', "force_color: true force_gray: true"))


def test_rand_skip_is_ignored_as_in_the_original() -> None:
    net = build(layer('source: "sized_lmdb" backend: LMDB batch_size: 3 rand_skip: 1000'))
    net.forward()
    np.testing.assert_array_equal(net.blobs["label"].data, np.load("data_lmdb.npz")["0/label"])


def test_a_bad_record_is_an_error_and_the_next_pass_goes_on_behind_it() -> None:
    good = [schema.Datum(channels=1, height=2, width=3, data=bytes([i] * 6), label=i) for i in range(3)]
    write("db", good[0], schema.Datum(data=b"no image", encoded=True), good[2])
    net = build(layer('source: "db" backend: LMDB batch_size: 1'))
    net.forward()
    with pytest.raises(DataError, match=r"Record '00000001' of 'db'.*In test.prototxt:\d+, layer 'l'"):
        net.forward()
    net.forward()
    assert net.blobs["label"].data.tolist() == [2]


def test_images_of_another_size_in_a_batch() -> None:
    write("db", *(schema.Datum(channels=1, height=h, width=3, data=bytes(3 * h)) for h in (2, 4)))
    net = build(layer('source: "db" backend: LMDB batch_size: 2'))
    with pytest.raises(DataError, match=r"'00000001' of 'db' has the shape \(1, 4, 3\).*must have one size"):
        net.forward()


def test_bad_sources() -> None:
    with pytest.raises(DataError, match=r"No LMDB at 'nowhere'.*working directory.*layer 'l'"):
        build(layer('source: "nowhere" backend: LMDB batch_size: 2'))
    with pytest.raises(DataError, match=r"data\.mdb\. It is a database of the other kind: set backend: LEVELDB\."):
        build(layer('source: "sized_leveldb" backend: LMDB batch_size: 2'))
    with pytest.raises(LayerError, match=r"at the same time\. In test\.prototxt:\d+, layer 'l'\.$"):
        build(layer('source: "sized_lmdb" backend: LMDB batch_size: 2', "mean_file: 'm' mean_value: 1"))
    with pytest.raises(LayerError, match=r"Positive batch size required\. Got batch_size 0"):
        build(layer('source: "sized_lmdb" backend: LMDB'))
    with pytest.raises(NetError, match="2"):
        build(layer('source: "sized_lmdb" backend: LMDB batch_size: 2', tops='top: "a" top: "b" top: "c"'))


def test_phases_read_one_database_side_by_side() -> None:
    nets = [build(layer('source: "sized_lmdb" backend: LMDB batch_size: 3'), phase=phase) for phase in (TRAIN, TEST)]
    for net in nets:
        net.forward()
    nets[0].forward()
    np.testing.assert_array_equal(nets[1].blobs["label"].data, np.load("data_lmdb.npz")["0/label"])
    np.testing.assert_array_equal(nets[0].blobs["label"].data, np.load("data_lmdb.npz")["1/label"])
