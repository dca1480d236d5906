"""A node whose object store and disk are really full: Ray takes the disk for full from the first byte in use."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

BEGIN = """
import sys, time
import numpy as np
import ray
from pycaffe import Pool
from pycaffe.cluster import train
from pycaffe.errors import ClusterError

options = {"include_dashboard": False, "configure_logging": False, "log_to_driver": False}
ray.init("local", num_cpus=4, object_store_memory=76 << 20, **options)
begun = time.monotonic()
"""
TRAINING = """
try:
    train("solver.prototxt", workers=1)
except ClusterError as error:
    print(error)
"""
WEIGHTS = """
try:
    Pool("deploy.prototxt", "large.caffemodel", backend="ray", workers=1)
except ClusterError as error:
    print(error)
"""
BATCH = """
def zeros(item):
    return np.zeros(5000, np.float32)

with Pool("small.prototxt", backend="ray", workers=1, batch_size=1, preprocess=zeros) as pool:
    large, other = pool.map([np.zeros(25_000_000, np.float32), 0])
    assert isinstance(large.error, ClusterError)
    assert other.error is None
    print(large.error)
"""
END = "print(time.monotonic() - begun < 30)"
INNER_PRODUCT = (
    'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 5000 } }'
)
NET = f"""
layer {{ name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param {{ shape {{ dim: 2 dim: 5000 }} shape {{ dim: 2 }} }} }}
{INNER_PRODUCT}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 5000 } } }'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "what"),
    [(TRAINING, "the parameters"), (WEIGHTS, "'{}/large.caffemodel' (100 MB)"), (BATCH, "a batch")],
    ids=["parameters", "weights", "batch"],
)
def test_a_full_object_store_is_an_error_soon(script: str, what: str, tmp_path: pathlib.Path) -> None:
    """Of 100 MB each: parameters in training, weights on their way to a node, an item. That costs the item alone."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3')
    (tmp_path / "deploy.prototxt").write_text(INPUT + INNER_PRODUCT)
    (tmp_path / "small.prototxt").write_text(INPUT + 'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }')
    (tmp_path / "large.caffemodel").write_bytes(bytes(100_000_000))  # nobody comes to read it
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script + END],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_local_fs_capacity_threshold": "0.0001"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told, soon = done.stdout.strip().splitlines()
    assert told.startswith(
        f"The object store is full: no room for {what.format(tmp_path)}. Ray says: Local disk is full"
    )
    assert soon == "True"
