from __future__ import annotations

import bench_training
import numpy as np
import plain_torch
import pytest

import caffe


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick"])
def test_peers_train_the_same_net(name: str) -> None:
    steps = bench_training.trainings(name, 5)
    pycaffe = steps.pop("pycaffe")
    (solver,) = [pycaffe.func.__self__]  # type: ignore[attr-defined]
    losses = []
    for _ in range(3):
        pycaffe()
        losses.append(float(solver.net.blobs["loss"].data))
    for peer, step in steps.items():
        np.testing.assert_allclose([step() for _ in range(3)], losses, rtol=1e-4, err_msg=peer)


@pytest.mark.parametrize("name", ["caffenet", "googlenet"])
def test_large_peers_have_the_parameters_of_the_prototxt(name: str) -> None:
    module = __import__(f"nets.{name}", fromlist=[name])
    net = caffe.Net(getattr(module, f"{name}_train")(1), caffe.TRAIN)
    plain = [tuple(parameter.shape) for parameter in plain_torch.NETS[name]().parameters()]
    assert plain == [blob.shape for blobs in net.params.values() for blob in blobs]


def test_the_layout_that_is_faster_over_all_processes_counts() -> None:
    processes = [
        {"pycaffe": [2.0], "contiguous": [4.0], "channels_last": [1.0]},
        {"pycaffe": [2.0], "contiguous": [3.0], "channels_last": [2.0]},
        {"pycaffe": [4.0], "contiguous": [3.0], "channels_last": [4.0]},
    ]
    assert bench_training.against_best(processes) == [2.0, 1.0, 1.0]
