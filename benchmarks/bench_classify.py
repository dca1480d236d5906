"""`caffe classify` on open_nsfw: images a second and the own memory of a worker, with one worker and with two.

The images are scikit-image's photographs, several times over; decoding is included, loading the net is not, nor is the
search for a batch size. There are enough of them that a last batch, for which only one worker is left, hardly counts.
Own memory is what a worker holds alone (USS); the mapped weights are shared.
"""

from __future__ import annotations

import pathlib
import statistics
import subprocess
import sys
import time

from measure import arguments, spread, verdict

import pycaffe

SCRIPTS = pathlib.Path(__file__).parent.parent / "scripts"
REPEATS = 12
ROUNDS = 3
WARM_UP = 104  # images; four batches of each size up to 8, and more
BAR = 1.85  # times the rate of one worker; required of CaffeNet (bench_pool.py), and no less welcome here


def fetch(name: str) -> pathlib.Path:
    """The folder that scripts/fetch_models gives."""
    done = subprocess.run(
        [sys.executable, SCRIPTS / "fetch_models", name], check=True, stdout=subprocess.PIPE, text=True
    )
    return pathlib.Path(done.stdout.strip())


def measure(workers: int, files: tuple[pathlib.Path, pathlib.Path], images: list[pathlib.Path]) -> tuple[float, float]:
    """Images a second, and the mean own memory of a worker in MB."""
    preprocess = pycaffe.ImagePreprocess(mean=(104, 117, 123), resize=256, crop=224)
    with pycaffe.Pool(*files, workers=workers, preprocess=preprocess) as pool:
        for _ in pool.imap_unordered(images[:WARM_UP]):
            pass
        start = time.perf_counter()
        failed = sum(result.error is not None for result in pool.imap_unordered(images))
        seconds = time.perf_counter() - start
        assert failed == 0
        memory = [worker.own_memory or 0 for worker in pool.stats().workers]
    return len(images) / seconds, sum(memory) / len(memory) / 1e6


def main() -> None:
    net = fetch("open_nsfw")
    files = (net / "deploy.prototxt", net / "resnet_50_1by2_nsfw.caffemodel")
    quick = arguments(__doc__).parse_args().quick
    images = sorted(fetch("photographs").iterdir()) * (1 if quick else REPEATS)
    rates: dict[int, list[float]] = {1: [], 2: []}
    memory: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(1 if quick else ROUNDS):
        for workers in rates:
            rate, own = measure(workers, files, images)
            rates[workers].append(rate)
            memory[workers].append(own)
    for workers in rates:
        print(f"{workers} worker(s): {spread(rates[workers])} images/s, {spread(memory[workers])} MB a worker")
    ratios = [two / one for one, two in zip(rates[1], rates[2])]
    print(f"2 workers / 1 worker: {spread(ratios)}   {verdict(statistics.median(ratios) >= BAR)} (bar {BAR})")


if __name__ == "__main__":
    main()
