"""Starting Ray, joining a cluster, and what each thing that can be wrong with that says."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from pycaffe.cluster import connection
from pycaffe.cluster.connection import NodeFacts, connect, load_ray, look_here, put, unfit
from pycaffe.errors import ClusterError, MissingExtra

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def outside_of_all_clusters(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    monkeypatch.setattr(load_ray(), "is_initialized", lambda: False)  # other tests may have


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster that asks for TOKEN."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray = str(pathlib.Path(sys.executable).with_name("ray"))
    options = ["--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false", "--block"]
    process = subprocess.Popen(
        [ray, "start", *options, "--object-store-memory=100000000", "--disable-usage-stats"],
        env={**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for line in process.stdout or ():
            if "--block" in line:
                break
        yield f"127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)  # at which it ends what it has started
        process.communicate(timeout=60)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r'pip install "pycaffe\[cluster\]"'):
        connect()


def test_nobody_listens_at_the_address() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"No Ray cluster at '{address}': .*refused.*`ray start --head"):
            connect(address)


@pytest.mark.parametrize("address", ["localhost", "host:port", ":6379", ""])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_start", None)
    if address == "":
        monkeypatch.setenv("RAY_ADDRESS", "nothing")
    with pytest.raises(ClusterError, match=r"is not the address of a Ray cluster\. Expected 'host:port'"):
        connect(address or None)


def test_somebody_else_listens_at_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "JOIN_SECONDS", 2)
    text = r"No Ray cluster at '127\.0\.0\.1:\d+'. It does not answer within 2 s"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(ClusterError, match=text):
        connect(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(("free", "size"), [(64 << 20, 512 << 20), (3 << 30, 3 << 29), (100 << 30, 4 << 30)])
def test_the_store_goes_by_what_shared_memory_has_left(free: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert connection._store_bytes() == size


def test_the_store_where_there_is_no_shared_memory_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(connection.shutil, "disk_usage", missing)
    assert connection._store_bytes() == 512 << 20


@pytest.mark.slow
def test_a_token_that_is_missing_switched_off_or_wrong_and_the_right_one(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"asks for a token\. This process has none\. Set RAY_AUTH_MODE=token"):
        connect(head)
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with pytest.raises(ClusterError, match=r"has one \(RAY_AUTH_TOKEN\), but RAY_AUTH_MODE is None"):
        connect(head)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN[::-1])
    with pytest.raises(ClusterError, match=r"That of this process \(RAY_AUTH_TOKEN\) is another one"):
        connect(head)
    assert time.monotonic() - start < 30
    joins = "import sys; from pycaffe.cluster.connection import *; c = connect(sys.argv[1]); check_nodes(c); c.close()"
    environment = {**os.environ, "RAY_AUTH_TOKEN": TOKEN}
    done = subprocess.run([sys.executable, "-c", joins, head], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.slow
def test_a_node_with_another_version(head: str) -> None:
    script = """
import sys
from importlib import metadata
from pycaffe.cluster.connection import check_nodes, connect
from pycaffe.errors import ClusterError

installed = metadata.version
metadata.version = lambda name: "0.0.1" if name == "pycaffe" else installed(name)
with connect(sys.argv[1]) as connection:
    try:
        check_nodes(connection)
    except ClusterError as error:
        print(error)
"""
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script, head], env=environment, capture_output=True, text=True)
    assert time.monotonic() - start < 30
    version = look_here().versions["pycaffe"]
    text = rf"Version mismatch: node '.+' has pycaffe {re.escape(version)}\. Expected 0\.0\.1, as here\."
    assert re.match(text, done.stdout), (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("RuntimeError: Version mismatch: The cluster was started with: Ray: 2.9", "has other versions. Version mism"),
        ("W gcs_client: InvalidAuthToken", "asks for a token"),
        ("Token authentication is enabled but no authentication token was found.", "asks for a token"),
        ("RuntimeError: No node info found matching", "`ray start --address=a:1 --num-cpus=0` makes it one"),
        ("", "does not answer within 20 s"),
        ("x\nWhat else\n", "Ray says: What else"),
    ],
)
def test_refusals(told: str, text: str) -> None:
    assert text in str(connection._refusal("a:1", told))


@pytest.mark.slow
def test_auto_where_no_cluster_is(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray looks for clusters among the machine's processes, and other tests have some; so it sees no processes here."""
    (tmp_path / "sitecustomize.py").write_text("import psutil; psutil.process_iter = lambda *words, **more: iter(())")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"No Ray cluster runs on this machine\. `ray start --head` starts one; so "):
        connect("auto")
    assert time.monotonic() - start < 30


def test_a_node_that_does_not_fit(tmp_path: pathlib.Path) -> None:
    here = look_here([str(tmp_path), str(tmp_path / "no")])
    assert here.missing == [str(tmp_path / "no")]
    assert set(here.versions) == {"pycaffe", "ray", "Python"}
    assert "has no '" + str(tmp_path / "no") in (unfit(here, here.versions) or "")
    other = NodeFacts("b", {**here.versions, "pycaffe": "0.0.1"}, [])
    assert (unfit(other, here.versions) or "").startswith("Version mismatch: node 'b' has pycaffe 0.0.1. Expected ")
    assert unfit(NodeFacts("b", here.versions, []), here.versions) is None


class _FullStore:
    """A `ray` whose object store takes nothing."""

    exceptions: Any = load_ray().exceptions

    def put(self, value: object) -> None:
        raise self.exceptions.ObjectStoreFullError("Failed to put object X\nmore")


def test_a_full_object_store() -> None:
    with pytest.raises(ClusterError, match=r"is full: no room for the weights\..*to put object X.*`ray start --obj"):
        put(_FullStore(), 1, "the weights")


LOCAL = """
import os, signal, sys
from pycaffe.cluster.connection import connect, check_nodes
from pycaffe.errors import ClusterError
first = connect(cpus=7)
folder = first.ray._private.worker._global_node.get_session_dir_path()
assert os.path.exists(folder)
second = connect("auto")
assert first.started and second.ray.cluster_resources()["CPU"] == 7
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
check_nodes(first, [sys.argv[1]])
for path, address in ((sys.argv[1] + "/no", None), (None, "127.0.0.1:1")):
    try:
        check_nodes(first, [path]) if path else connect(address)
    except ClusterError as error:
        print(error)
first.close(); first.close()
assert second.ray.is_initialized()
second.close()
assert not second.ray.is_initialized()
assert not os.path.exists(folder)
"""


@pytest.mark.slow
def test_a_ray_of_ones_own_is_quiet_shared_and_gone_with_its_last_user(tmp_path: pathlib.Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOCAL, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    missing, elsewhere = done.stdout.splitlines()
    assert f"has no '{tmp_path}/no'. The same path has to lead to the data on every node" in missing
    assert "already and cannot join '127.0.0.1:1' too" in elsewhere
