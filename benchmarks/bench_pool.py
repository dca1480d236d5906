"""The pool: memory, replacement of a killed worker, throughput, batch sizes, cost per item, transport.

    bench_pool.py [--sections memory,replacement,throughput,batch,cost,transport] [--quick]

The net is CaffeNet (244 MB of weights) but for the cost per item, where it is one that does nothing. Images are
scikit-image's photographs as JPEGs of 500×375; decoding is included, loading the net is not.

memory      after real work: own memory of each of 2 workers (USS), and the sum of PSS over the zygote and 8 workers.
replacement from SIGKILL to a successor that accepts items; the other worker is idle.
throughput  images a second of pools that are all there and take turns (pool_peers.py), against hand-written ones, too.
batch       images a second and own memory of a worker by batch_size, and for the size that the pool finds by itself.
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
SIZES_TRIED = (1, 4, 8, 16, 32, None)
BATCH_NETS = ("caffenet", "squeezenet_v1_1")  # both take images of the same size
BATCH_BAR = 0.95  # of the best size given
BATCH_IMAGES, SETTLING = 128, 640  # whole batches of each size for each of two workers; enough to try all of them
COST_BAR, COST_ITEMS = 0.06e-3, 20_000
NOTHING = """
name: "nothing"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 } } }
layer { name: "same" type: "Power" bottom: "data" top: "same" }
"""
SIZES = [1 << power for power in range(12, 23)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--sections", type=lambda names: names.split(","), default=list(SECTIONS))
    options = parser.parse_args()
    images = jpegs()
    for name in options.sections:
        SECTIONS[name](images, options.quick)


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


def pool_of(net: str, workers: int, batch: int | None) -> pycaffe.Pool:
    preprocess = pycaffe.ImagePreprocess(mean=MEAN, resize=(SIZE, SIZE))
    return pycaffe.Pool(*net_files(net), workers=workers, batch_size=batch, preprocess=preprocess)


# -- memory


def memory(images: pathlib.Path, quick: bool) -> None:
    """Prints what workers own, and what zygote and workers hold together."""
    for batch in OWN_BARS:
        memory_at(batch, images, 2 if quick else 6)


def memory_at(batch: int, images: pathlib.Path, batches: int) -> None:
    files = net_files("caffenet")
    weights = weight_bytes(caffe.Net(str(files[0]), caffe.TEST, weights=str(files[1])))
    for workers in (2, 8):
        with pool_of("caffenet", workers, batch) as pool:
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


def replacement(images: pathlib.Path, quick: bool) -> None:
    """Prints how long a place is empty whose worker was killed."""
    deaths = 5 if quick else 30
    seconds: list[float] = []
    with pool_of("caffenet", 2, BATCH) as pool:
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


def throughput(images: pathlib.Path, quick: bool) -> None:
    """Prints images a second of all pools, and pycaffe's over each."""
    rounds, count = (2, 64) if quick else (ROUNDS, IMAGES)
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


# -- batch


def batch(images: pathlib.Path, quick: bool) -> None:
    """Prints images a second and memory by batch size; the pools of a net are all there and take turns."""
    rounds, count, settling = (1, 64, 64) if quick else (ROUNDS, BATCH_IMAGES, SETTLING)
    for net in BATCH_NETS:
        rates: dict[int | None, list[float]] = {size: [] for size in SIZES_TRIED}
        with ExitStack() as stack:
            pools = {size: stack.enter_context(pool_of(net, 2, size)) for size in SIZES_TRIED}
            for size, pool in pools.items():
                await_workers(pool)
                work(pool, images, 4 * size if size else settling)
            for number in range(rounds):
                for size in SIZES_TRIED if number % 2 else SIZES_TRIED[::-1]:
                    start = time.perf_counter()
                    work(pools[size], images, count)
                    rates[size].append(count / (time.perf_counter() - start))
            found = {size: pool.stats() for size, pool in pools.items()}
        for size, stats in found.items():
            own = max(worker.own_memory or 0 for worker in stats.workers) / 1e6
            name = f"{net}, batch_size {size}" + ("" if size else f" (found {stats.batch_size})")
            print(f"batch, {name:45}{spread(rates[size])} images/s, {own:.3g} MB of its own a worker")
        best = max((size for size in SIZES_TRIED if size), key=lambda size: statistics.median(rates[size]))
        ratios = [mine / theirs for mine, theirs in zip(rates[None], rates[best])]
        held = statistics.median(ratios) >= BATCH_BAR
        print(f"batch, {net}: found / best ({best}): {spread(ratios)}   {verdict(held)} (bar {BATCH_BAR})")


# -- cost


def cost(images: pathlib.Path, quick: bool) -> None:
    """Prints the pool's own time for an item."""
    rounds, count = (2, 2000) if quick else (ROUNDS, COST_ITEMS)
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


def transport(images: pathlib.Path, quick: bool) -> None:
    """Prints the time of a round trip of an array there and of one back, by size and way."""
    rounds = 20 if quick else 200
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


SECTIONS = {section.__name__: section for section in (memory, replacement, throughput, batch, cost, transport)}

if __name__ == "__main__":
    main()
