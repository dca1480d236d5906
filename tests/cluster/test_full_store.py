"""A node whose object store and disk are really full: Ray takes the disk for full from the first byte in use."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
import ray
from pycaffe.cluster import train
from pycaffe.errors import ClusterError

options = {"include_dashboard": False, "configure_logging": False, "log_to_driver": False}
ray.init("local", num_cpus=4, object_store_memory=76 << 20, **options)
begun = time.monotonic()
try:
    train("solver.prototxt", workers=1)
except ClusterError as error:
    print(error)
print(time.monotonic() - begun < 30)
"""
NET = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: 2 dim: 5000 } shape { dim: 2 } } }
layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 5000 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
"""


@pytest.mark.slow
def test_a_full_object_store_is_an_error_soon(tmp_path: pathlib.Path) -> None:
    """Parameters of 100 MB."""
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 3')
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_local_fs_capacity_threshold": "0.0001"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told, soon = done.stdout.strip().splitlines()
    assert told.startswith("The object store is full: no room for the parameters. Ray says: Local disk is full")
    assert soon == "True"
