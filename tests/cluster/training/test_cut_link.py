"""Two nodes in network namespaces of their own; the link between them is cut for 10 s, then for 60 s: 100 s in all."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.cluster.training.small_net import write_solver

HEAD, OTHER = "10.77.0.1", "10.77.0.2"
RAY = str(pathlib.Path(sys.executable).with_name("ray"))

# Cuts the link twice, and stops the run once it goes on after the second time.
SCRIPT = """
import json, subprocess, sys, threading, time
import numpy as np
import pycaffe.cluster.training.driver
from pycaffe.cluster import RunControl, train

solver, address, space, device = sys.argv[1:]
control, done, told = RunControl(), [0], {}
SETTLES = 3.0  # seconds in which the reports of steps from before the cut arrive

def link(state):
    subprocess.run(["ip", "-n", space, "link", "set", device, state], check=True)

def cut(seconds):
    link("down")
    time.sleep(SETTLES)
    begun = done[0]
    time.sleep(seconds - SETTLES)
    told[seconds] = done[0] - begun
    link("up")
    begun = done[0]
    while done[0] < begun + 20:
        time.sleep(0.1)

def act():
    cut(10)
    told["after"] = done[0]
    cut(60)
    control.stop()

def progress(iteration, loss):
    if done[0] == 0:
        pycaffe.cluster.training.driver.START_SECONDS = 5.0  # for who takes a dead one's place
        threading.Thread(target=act, daemon=True).start()
    done[0] = iteration

run = train(solver, workers=2, servers=2, min_workers=1, checkpoint_every=100, on_progress=progress, address=address,
            control=control)
generations = sorted({event.generation for event in run.trace})
batches = {g: sorted(n for e in run.trace for n in e.batches if e.generation == g) for g in generations}
assigned = {steps.generation: steps.assignment for steps in run.counted}
print(json.dumps({
    "told": told, "restarts": run.restarts, "iter": run.iter, "losses": len(run.losses),
    "loss": float(np.mean(run.losses[-20:])), "first_loss": float(np.mean(run.losses[:20])),
    "workers": [max(e.worker for e in run.trace if e.generation == g) + 1 for g in generations],
    "twice": sum(len(b) - len(set(b)) for b in batches.values()),
    "others": sum(list(e.batches) != assigned[e.generation].batches(e.worker, e.clock)
                  for e in run.trace if e.kind == "push" and e.generation in assigned),
    "steps": sum(steps.end[0] - steps.first[0] for steps in run.counted),
    "whole": run.batches == list(range(len(run.batches))),
}))
"""


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


def ray_start(space: str, *options: str) -> subprocess.Popen[str]:
    """A node in a namespace, which is up."""
    node = subprocess.Popen(
        ["ip", "netns", "exec", space, RAY, "start", *options, "--num-cpus=2", "--object-store-memory=100000000",
         "--disable-usage-stats", "--block"],
        # Ray gives a node up after 25 s; it would have 65 by itself
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_health_check_timeout_ms": "2000"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    told = []
    for line in node.stdout or ():
        told.append(line)
        if "--block" in line:
            return node
    raise AssertionError("".join(told))


@pytest.fixture
def two_nodes() -> Iterator[tuple[str, str, str]]:
    """The namespace of the head, that of the other node, and the link's device in the latter."""
    if why := why_no_namespaces():
        pytest.skip(f"No network namespaces can be made here: {why}")
    first, second = (f"pycaffe-{os.getpid()}-{name}" for name in "ab")
    device = f"pc{os.getpid()}"
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")  # a short name: sockets are in it
    nodes = []
    try:
        ip("netns", "add", first)
        ip("netns", "add", second)
        ip("link", "add", f"{device}a", "netns", first, "type", "veth", "peer", "name", f"{device}b", "netns", second)
        for space, own, address in ((first, f"{device}a", HEAD), (second, f"{device}b", OTHER)):
            ip("-n", space, "link", "set", "lo", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", own)
            ip("-n", space, "link", "set", own, "up")
            ip("-n", space, "route", "add", "default", "dev", own)  # Ray asks for the way out to learn its address
        head = ("--head", "--port=6379", f"--node-ip-address={HEAD}", "--include-dashboard=false")
        nodes.append(ray_start(first, *head, f"--temp-dir={folder}"))
        nodes.append(ray_start(second, f"--address={HEAD}:6379", f"--node-ip-address={OTHER}"))
        yield first, second, f"{device}b"
    finally:
        for node in reversed(nodes):
            node.terminate()
            node.communicate(timeout=30)
        for space in (first, second):
            left = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True).stdout.split()
            for pid in map(int, left):
                os.kill(pid, signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_run_outlives_a_link_that_is_cut(two_nodes: tuple[str, str, str], tmp_path: pathlib.Path) -> None:
    """10 s are waited for. After 60 s Ray has given the other node up, and the run went on without it."""
    first, second, device = two_nodes
    solver = write_solver(tmp_path, 4, "momentum: 0.9 stepsize: 1000", steps=1_000_000)
    done = subprocess.run(
        ["ip", "netns", "exec", first, sys.executable, "-c", SCRIPT, solver, f"{HEAD}:6379", second, device],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["told"]["10"] == 0, "in sync nobody goes on alone"
    assert told["told"]["60"] >= 20, "it went on while the link was cut"
    assert told["restarts"] >= 1
    assert told["iter"] > told["told"]["after"] + 20
    # Who is stopped may not come to report its last step.
    assert told["losses"] >= told["iter"] - 1
    assert told["workers"][0] == 2
    assert told["twice"] == 0, "who was cut off changes nothing"
    assert told["others"] == 0, "each read what it was to read"
    assert told["whole"], "every batch counts once, those of steps that nobody came to tell of as well"
    assert told["steps"] == told["iter"]
    assert told["loss"] < told["first_loss"]
