"""Nets that are loaded in a process without threads for the children that it forks: `Net.prepare_to_fork`."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.errors import NetError
from pycaffe.net import Net
from tests.net.nets import data, ip, layer, net_of, normal, run_python

CONV = 'convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "gaussian" std: 0.3 } }'
TEXT = (
    data(1, 3, 7, 8)
    + layer("conv", "Convolution", "data", rest=CONV)
    + layer("relu", "ReLU", "conv", "conv")
    + ip("fc1", "conv", 11)
    + ip("fc2", "fc1", 6)
    + layer("prob", "Softmax", "fc2")
)
ONE_BATCH_ONLY = data(2, 3, 4, 5) + layer("flat", "Reshape", "data", rest="reshape_param { shape { dim: 2 dim: 60 } }")

SCRIPT = """
import os, sys
import numpy as np
from pycaffe.engines import compiled_segment
from pycaffe.net import Net
made = []
create = compiled_segment.CompiledSegment._session
def counted(self, *arguments, **named):
    before = list(self._sessions)
    found = create(self, *arguments, **named)
    made.extend(outputs for outputs in self._sessions if outputs not in before)
    return found
compiled_segment.CompiledSegment._session = counted
net = Net("net.prototxt", weights="net.caffemodel", threads=1)
for extent in map(int, sys.argv[1].split(",")):
    net.prepare_to_fork(extent, ["fc1", "prob"])
assert len(os.listdir("/proc/self/task")) == 1
assert len(made) == int(sys.argv[2]), made
del made[:]
pid = os.fork()
if pid == 0:
    for extent in map(int, sys.argv[1].split(",")):
        x = np.random.default_rng(extent).standard_normal((extent, 3, 7, 8)).astype(np.float32)
        net.blobs["data"].reshape(*x.shape)
        prob = net.forward(data=x)["prob"]
        np.savez(f"{extent}.npz", prob=prob, fc1=net.blobs["fc1"].data)
    os._exit(len(made))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.parametrize(("extents", "sessions"), [("1", 1), ("4,1", 1), ("4,1,3", 1)])
def test_children_use_the_sessions_that_were_made_before(tmp_path, extents: str, sessions: int) -> None:
    """Those hand out what the children will look at, and one of them serves all batch extents."""
    net = net_of(TEXT)
    (tmp_path / "net.prototxt").write_text(TEXT)
    net.save(tmp_path / "net.caffemodel")
    run_python(SCRIPT, extents, str(sessions), cwd=tmp_path, env={"ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1"})
    for extent in map(int, extents.split(",")):
        got = np.load(tmp_path / f"{extent}.npz")
        net.blobs["data"].reshape(extent, 3, 7, 8)
        want = net.forward(data=normal(extent, 3, 7, 8, seed=extent))
        np.testing.assert_allclose(got["prob"], want["prob"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(got["fc1"], net.blobs["fc1"].data, rtol=1e-4, atol=1e-6)


def test_a_blob_inside_comes_out_of_the_first_session(monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of(TEXT, threads=1)
    net.prepare_to_fork(4, ["fc1", "prob"])
    net.prepare_to_fork(1, ["fc1", "prob"])

    def no_more(*arguments: object) -> None:
        raise AssertionError("a second session")

    (compiled,) = net._engine_pair()[0]._compiled.values()
    monkeypatch.setattr(compiled, "_create", no_more)
    reference: Net = net_of(TEXT, engine="torch")
    for name in net.params:
        for mine, theirs in zip(reference.params[name], net.params[name]):
            mine.data[...] = theirs.data
    for extent in (1, 4, 2):
        x = normal(extent, 3, 7, 8, seed=extent)
        for each in (net, reference):
            each.blobs["data"].reshape(*x.shape)
            each.forward(data=x)
        for name in ("fc1", "prob"):
            want = reference.blobs[name].data
            np.testing.assert_allclose(net.blobs[name].data, want, rtol=1e-4, atol=1e-6)


def test_a_net_that_takes_no_batches() -> None:
    net = net_of(ONE_BATCH_ONLY, threads=1)
    with pytest.raises(NetError, match="output count must match input count"):
        net.prepare_to_fork(4, ["flat"])
    net.prepare_to_fork(2, ["flat"])
    np.testing.assert_array_equal(net.forward(data=normal(2, 3, 4, 5))["flat"], normal(2, 3, 4, 5).reshape(2, 60))
