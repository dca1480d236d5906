"""The pool: memory, replacement of a killed worker, throughput against hand-written pools, cost per item, transport.

The net is CaffeNet (244 MB of weights) but for the cost per item, where it is one that does nothing. Images are
scikit-image's photographs as JPEGs of 500×375; decoding is included, loading the net is not.

memory      after real work: own memory of each of 2 workers (USS), and the sum of PSS over the zygote and 8 workers.
replacement from SIGKILL to a successor that accepts items; the other worker is idle.
throughput  images a second of pools that are all there and take turns (pool_peers.py).
cost        seconds an item, for items of one number.
transport   seconds from the pool to a worker and back, by size, through the pipe and through shared memory.
"""

from __future__ import annotations

import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
from bench_classify import fetch
from measure import FILES, arguments, net_files, ratio, spread, verdict, weight_bytes
from pool_peers import MEAN, SIZE

import caffe
import pycaffe
from pycaffe.workers.memory import Memory, memory_of
from pycaffe.workers.pipe_end import PipeEnd
from pycaffe.workers.transport import SharedMemory, Transport, memory_file

WIDTH, HEIGHT = 500, 375
OWN_BARS = {1: 24e6, 8: 64e6}  # bytes, by batch
SUM_BAR = 1.6  # of the weights, beside the growth of the workers
REPLACEMENT_BAR = 0.1  # s
BATCH = 8
ROUNDS, IMAGES = 7, 208  # whole batches, as many for each of two workers
COST_BAR, COST_ITEMS = 0.06e-3, 20_000
NOTHING = """
name: "nothing"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 } } }
layer { name: "same" type: "Power" bottom: "data" top: "same" }
"""
SIZES = [1 << power for power in range(12, 23)]


def main() -> None:
    quick = arguments(__doc__).parse_args().quick
    images = jpegs()
    for batch in OWN_BARS:
        memory(batch, images, 2 if quick else 6)
    replacement(images, 5 if quick else 30)
    throughput(images, 2 if quick else ROUNDS, 64 if quick else IMAGES)
    cost(2 if quick else ROUNDS, 2000 if quick else COST_ITEMS)
    transport(20 if quick else 200)


def jpegs() -> pathlib.Path:
    """A folder of photographs of 500×375, written once."""
    import cv2

    folder = FILES / "jpegs"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=FILES) as made:
            for path in sorted(fetch("photographs").iterdir()):
                image = cv2.resize(cv2.imread(str(path)), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
                cv2.imwrite(f"{made}/{path.stem}.jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
            os.rename(made, folder)
            os.mkdir(made)
    return folder


def caffenet_pool(workers: int, batch: int) -> pycaffe.Pool:
    preprocess = pycaffe.ImagePreprocess(mean=MEAN, resize=(SIZE, SIZE))
    return pycaffe.Pool(*net_files("caffenet"), workers=workers, batch_size=batch, preprocess=preprocess)


# -- memory


def memory(batch: int, images: pathlib.Path, batches: int) -> None:
    """Prints what workers own, and what zygote and workers hold together."""
    files = net_files("caffenet")
    weights = weight_bytes(caffe.Net(str(files[0]), caffe.TEST, weights=str(files[1])))
    for workers in (2, 8):
        with caffenet_pool(workers, batch) as pool:
            pids = await_workers(pool)
            before = [memory_there(pid) for pid in pids]
            work(pool, images, workers * batch * batches)
            after = [memory_there(pid) for pid in pids]
            zygote = memory_there(parent_of(pids[0]))
        own = [now.own for now in after]
        if workers == 2:
            bar = OWN_BARS[batch]
            print(f"memory, batch {batch}: {spread([n / 1e6 for n in own])} MB a worker   {held(max(own), bar, 1e6)}")
        else:
            growth = statistics.median(now.own - then.own for now, then in zip(after, before))
            total = zygote.share + sum(now.share for now in after)
            bar = SUM_BAR * weights + workers * growth
            print(
                f"memory, batch {batch}: {total / 1e6:.3g} MB, zygote and {workers} workers   {held(total, bar, 1e6)}"
            )


def held(value: float, bar: float, unit: float) -> str:
    return f"{verdict(value <= bar)} (bar {bar / unit:.3g})"


def work(pool: pycaffe.Pool, images: pathlib.Path, count: int) -> None:
    paths = sorted(images.iterdir())
    for result in pool.imap_unordered(paths[i % len(paths)] for i in range(count)):
        if result.error is not None:
            raise result.error


def await_workers(pool: pycaffe.Pool) -> list[int]:
    """The workers' processes, when all are idle."""
    while True:
        found = pool.stats().workers
        pids = [worker.pid for worker in found if worker.state == "idle" and worker.pid is not None]
        if len(pids) == len(found):
            return pids
        time.sleep(0.001)


def memory_there(pid: int) -> Memory:
    found = memory_of(pid)
    if found is None:
        raise RuntimeError(f"Process {pid} is gone, or this system tells no process's memory.")
    return found


def parent_of(pid: int) -> int:
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


# -- replacement


def replacement(images: pathlib.Path, deaths: int) -> None:
    """Prints how long a place is empty whose worker was killed."""
    seconds: list[float] = []
    with caffenet_pool(2, BATCH) as pool:
        await_workers(pool)
        work(pool, images, 4 * BATCH)
        for _ in range(deaths):
            victim = await_workers(pool)[0]
            start = time.perf_counter()
            os.kill(victim, signal.SIGKILL)
            while victim in await_workers(pool):
                pass
            seconds.append(time.perf_counter() - start)
        work(pool, images, 4 * BATCH)
    median = statistics.median(seconds)
    print(f"replacement: {spread([s * 1e3 for s in seconds])} ms   {held(median, REPLACEMENT_BAR, 1e-3)}")


# -- throughput


def throughput(images: pathlib.Path, rounds: int, count: int) -> None:
    """Prints images a second of all pools, and pycaffe's over each."""
    pools = {"pycaffe, 1 worker": ("pycaffe", 1), "pycaffe": ("pycaffe", 2), "opencv": ("opencv", 2)}
    pools["onnxruntime"] = ("onnxruntime", 2)
    rates: dict[str, list[float]] = {name: [] for name in pools}
    with ExitStack() as stack:
        running = {name: stack.enter_context(peer(*pool, images)) for name, pool in pools.items()}
        for number in range(rounds):
            names = list(running)
            for name in [*names[number % len(names) :], *names[: number % len(names)]]:
                rates[name].append(count / running[name](count))
    for name, values in rates.items():
        print(f"throughput, {name:18}{spread(values)} images/s")
    for name, bar in (("pycaffe, 1 worker", 1.85), ("opencv", 2.5), ("onnxruntime", 0.95)):
        times = ratio(rates["pycaffe"], rates[name])
        ratios = [mine / theirs for mine, theirs in zip(rates["pycaffe"], rates[name])]
        print(f"throughput, pycaffe with 2 workers / {name}: {spread(ratios)}   {verdict(times >= bar)} (bar {bar})")


@contextmanager
def peer(name: str, workers: int, images: pathlib.Path) -> Iterator[Callable[[int], float]]:
    """A pool in a process of its own; gives the seconds that it takes for so many images."""
    script = pathlib.Path(__file__).with_name("pool_peers.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, script, name, str(workers), str(BATCH), images],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"The pool of {name} did not start.")

        def run(count: int) -> float:
            print(count, file=process.stdin, flush=True)
            return float(process.stdout.readline())  # type: ignore[union-attr]

        yield run
        process.stdin.close()


# -- cost


def cost(rounds: int, count: int) -> None:
    """Prints the pool's own time for an item."""
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder, "nothing.prototxt")
        model.write_text(NOTHING)
        items = [{"data": np.full(1, i, np.float32)} for i in range(count)]
        with pycaffe.Pool(model, workers=2, batch_size=BATCH) as pool:
            seconds = []
            for _ in range(rounds + 1):
                start = time.perf_counter()
                done = sum(result.outputs["same"][0] == result.index for result in pool.imap_unordered(items))
                seconds.append((time.perf_counter() - start) / count)
                if done != count:
                    raise RuntimeError(f"{done} of {count} items came back right.")
    seconds = seconds[1:]
    print(f"cost: {spread([s * 1e3 for s in seconds])} ms an item   {held(statistics.median(seconds), COST_BAR, 1e-3)}")


# -- transport


def transport(rounds: int) -> None:
    """Prints the time of a round trip of an array there and of one back, by size and way."""
    import socket

    file = memory_file()
    ends = {}
    for way in ("pipe", "shared"):
        memories = (None, None)
        if way == "shared":
            if file is None:
                print("transport: this system has no shared memory of this kind")
                break
            memories = (SharedMemory(os.dup(file), 0), SharedMemory(os.dup(file), 1))
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            echo(Connection(theirs.detach()), Transport(memories[1]))
        theirs.close()
        ends[way] = PipeEnd(ours), Transport(memories[0]), pid
    for size in SIZES:
        array = np.zeros(size, np.uint8)
        seconds: dict[str, list[float]] = {way: [] for way in ends}
        for _ in range(rounds):
            for way, (end, side, _) in ends.items():
                start = time.perf_counter()
                end.send(side.pack(array))
                await_message(end, side)
                seconds[way].append(time.perf_counter() - start)
        times = {way: statistics.median(values) * 1e6 for way, values in seconds.items()}
        print(f"transport, {size >> 10:5} KB: " + ", ".join(f"{way} {value:.0f} µs" for way, value in times.items()))
    for end, _, pid in ends.values():
        end.close()
        os.waitpid(pid, 0)


def await_message(end: PipeEnd, side: Transport) -> Any:
    while True:
        wait([end])
        messages, ended = end.receive()
        if messages:
            return side.unpack(messages[0])
        if ended:
            raise RuntimeError("The other process has ended.")


def echo(connection: Connection, side: Transport) -> None:
    """The other process."""
    try:
        while True:
            connection.send_bytes(b"".join(side.pack(side.unpack(connection.recv_bytes()))))
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
