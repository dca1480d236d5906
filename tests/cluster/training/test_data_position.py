from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from pycaffe import rng
from pycaffe.cluster.protocol.assignment import Assignment
from pycaffe.cluster.training.data_position import DataPosition, Place
from pycaffe.net import TRAIN, Net
from tests.cluster.training.small_net import write_data
from tests.layers.case import build

READERS = {
    "HDF5Data": 'type: "HDF5Data" hdf5_data_param { source: "list.txt" batch_size: 4 shuffle: true }',
    "DummyData": 'type: "DummyData" dummy_data_param { shape { dim: 4 dim: 2 } data_filler { type: "gaussian" } }',
}


def net_of(reader: str) -> Net:
    rng.seed(5)
    return build(f'layer {{ name: "l" top: "data" top: "label" {READERS[reader]} }}', phase=TRAIN)


@pytest.mark.parametrize("reader", READERS)
def test_every_worker_reads_its_own_part_of_what_one_process_reads(
    reader: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    one = net_of(reader)
    want = []
    for _ in range(30):  # more than an epoch
        one.forward()
        want.append(one.blobs["data"].data.copy())
    places: dict[int, Place] = {0: Place()}
    for rank, clock, steps in [(0, 0, 5), (2, 0, 4), (1, 3, 2), (2, 4, 5)]:
        net = net_of(reader)
        position = DataPosition(net)
        begin = 3 * clock + rank
        position.go(Assignment(3), rank, clock, places[max(known for known in places if known <= begin)])
        for step in range(clock, clock + steps):
            assert position.next() == 3 * step + rank
            net.forward()
            np.testing.assert_array_equal(net.blobs["data"].data, want[3 * step + rank])
        place = position.place()
        assert place.batch == 3 * (clock + steps - 1) + rank + 1
        places[place.batch] = Place(place.batch, json.loads(json.dumps(place.readers)))
    # A process that reads all batches goes on from a place, and from one that is worked out.
    for place in (places[13], DataPosition(net_of(reader)).place_of(20, places[14])):
        net = net_of(reader)
        assert place.batch in (13, 20)
        net.layers[0].restore(place.readers["l"])
        net.forward()
        np.testing.assert_array_equal(net.blobs["data"].data, want[place.batch])
