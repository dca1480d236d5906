"""The pool on Ray against the pool of processes: images a second of CaffeNet at batch 8, 2 workers on this machine.

Both decode the same JPEGs of 500×375 and take turns in one run; loading the net is not included. Ray is started here.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench_pool import BATCH, IMAGES, ROUNDS, jpegs, peer
from measure import arguments, ratio, spread, verdict

BAR = 0.85  # of the pool of processes


def main() -> None:
    quick = arguments(__doc__).parse_args().quick
    rounds, count = (3, 64) if quick else (ROUNDS, IMAGES)
    images = jpegs()
    rates: dict[str, list[float]] = {"pycaffe": [], "ray": []}
    with ExitStack() as stack:
        running = {name: stack.enter_context(peer(name, 2, images)) for name in rates}
        for number in range(rounds):
            for name in list(running) if number % 2 else reversed(list(running)):
                rates[name].append(count / running[name](count))
    for name, values in rates.items():
        print(f"{name:9}{spread(values)} images/s")
    ratios = [ray / process for ray, process in zip(rates["ray"], rates["pycaffe"])]
    held = ratio(rates["ray"], rates["pycaffe"]) >= BAR
    print(f"ray / processes, batch {BATCH}: {spread(ratios)}   {verdict(held)} (bar {BAR})")


if __name__ == "__main__":
    main()
