"""Two nodes of Ray in network namespaces of their own, joined by a link that can be cut: on Linux, as root."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.cluster.training.run_processes import actors_among, left_after, processes_in

ROOT = pathlib.Path(__file__).parents[3]
HEAD, OTHER = "10.77.0.1", "10.77.0.2"
PORT = 6379
RAY = str(pathlib.Path(sys.executable).with_name("ray"))
SETTINGS = {
    "RAY_AUTH_MODE": "disabled",
    # Ray gives a node up after 25 s; it would have 65 by itself.
    "RAY_health_check_timeout_ms": "2000",
    # A node asks soon whether the link is back, and hears that it was given up; by itself half a minute later.
    "RAY_grpc_client_keepalive_time_ms": "2000",
    "RAY_grpc_client_keepalive_timeout_ms": "2000",
}
END_SECONDS = 10.0  # in which all processes of a run end


@dataclass(frozen=True)
class Namespaces:
    """Two of them. Attributes: device: the link's end in the second."""

    first: str
    second: str
    device: str

    def link(self, state: str) -> None:
        """Makes the link "up" or "down"."""
        ip("-n", self.second, "link", "set", self.device, state)

    def actors(self) -> list[int]:
        """The workers and servers of runs, on both sides of the link."""
        return actors_among([*processes_of(self.first), *processes_of(self.second)])


def why_no_namespaces() -> str:
    """Why network namespaces cannot be made here; nothing if they can."""
    if sys.platform != "linux" or shutil.which("ip") is None:
        return "needs Linux with iproute2"
    name = f"pycaffe-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], capture_output=True)
    return made.stderr.strip()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def processes_of(space: str) -> list[int]:
    """Those in a namespace."""
    told = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True)
    return [int(pid) for pid in told.stdout.split()]


@contextlib.contextmanager
def two_nodes() -> Iterator[Namespaces]:
    """A node in each of two namespaces, with two CPUs each."""
    spaces = Namespaces(*(f"pycaffe-{os.getpid()}-{name}" for name in "ab"), f"pc{os.getpid()}b")
    peer = f"pc{os.getpid()}a"
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # a short name: sockets are in it
    nodes = []
    try:
        ip("netns", "add", spaces.first)
        ip("netns", "add", spaces.second)
        veth = ("link", "add", peer, "netns", spaces.first, "type", "veth")
        ip(*veth, "peer", "name", spaces.device, "netns", spaces.second)
        for space, own, address in ((spaces.first, peer, HEAD), (spaces.second, spaces.device, OTHER)):
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", own)
            ip("-n", space, "link", "set", own, "up")
            ip("-n", space, "route", "add", "default", "dev", own)  # Ray asks for the way out to learn its address
        head = ("--head", f"--port={PORT}", f"--node-ip-address={HEAD}", "--include-dashboard=false")
        nodes.append(_start_node(spaces.first, *head, f"--temp-dir={folder}"))
        nodes.append(_start_node(spaces.second, f"--address={HEAD}:{PORT}", f"--node-ip-address={OTHER}"))
        yield spaces
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.communicate(timeout=30)
        for space in (spaces.first, spaces.second):
            for pid in processes_of(space):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def _start_node(space: str, *options: str) -> subprocess.Popen[str]:
    """A node in a namespace, which is up."""
    node = subprocess.Popen(
        ["ip", "netns", "exec", space, RAY, "start", *options, "--num-cpus=2", "--object-store-memory=100000000",
         "--disable-usage-stats", "--block"],
        env={**os.environ, **SETTINGS},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    told = []
    for line in node.stdout or ():
        told.append(line)
        if "--block" in line:
            return node
    raise RuntimeError("".join(told))


def run_with_cuts(spaces: Namespaces, solver: str, iterations: int, seconds: float) -> dict[str, Any]:
    """What cut_link_run.py tells of a run of a solver, and as `left` the processes that it left; the nodes still run.

    Args:
        iterations: the run has so many at least.
        seconds: it may take, in all.

    Raises:
        RuntimeError: it failed. Says what it printed.
    """
    command = [sys.executable, "-m", "tests.cluster.training.cut_link_run"]
    words = [os.path.abspath(solver), f"{HEAD}:{PORT}", spaces.first, spaces.second, spaces.device, str(iterations)]
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        ["ip", "netns", "exec", spaces.first, *command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment, text=True, start_new_session=True,
    ) as run:  # fmt: skip
        try:
            printed, errors = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    if run.returncode != 0:
        raise RuntimeError(f"cut_link_run ended with {run.returncode}: {errors[-4000:]}")
    told: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    told["left"] = left_after(END_SECONDS, lambda: [*processes_in(run.pid), *spaces.actors()])
    return told
