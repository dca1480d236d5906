"""A run of two workers and two servers on two nodes, between which the link is cut for 10 s, then for 60 s.

    cut_link_run.py SOLVER ADDRESS FIRST SECOND DEVICE ITERATIONS

It is stopped once it goes on after the second cut, and has so many iterations. Prints in JSON what came of it.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import numpy as np

import pycaffe.cluster.training.driver
from pycaffe.cluster import Run, RunControl, train
from tests.cluster.training.two_namespaces import Namespaces

SETTLES = 3.0  # seconds in which the reports of steps from before the cut arrive
MORE = 20  # iterations after a cut, and it has gone on


def main() -> None:
    solver, address, *spaces, iterations = sys.argv[1:]
    control, cuts = RunControl(), Cuts(Namespaces(*spaces))

    def act() -> None:
        cuts.cut(10)
        cuts.wait_for(cuts.done + MORE)
        cuts.told["after"] = cuts.done
        cuts.cut(60)
        cuts.wait_for(max(cuts.done + MORE, int(iterations)))
        control.stop()

    def progress(iteration: int, loss: float) -> None:
        if cuts.done == 0:
            pycaffe.cluster.training.driver.START_SECONDS = 5.0  # for who takes a dead one's place
            threading.Thread(target=act, daemon=True).start()
        cuts.done = iteration

    run = train(
        solver, workers=2, servers=2, min_workers=1, checkpoint_every=100, on_progress=progress, address=address,
        control=control,
    )  # fmt: skip
    print(json.dumps({**cuts.told, **facts_of(run)}))


class Cuts:
    """Cuts the link, and notes what was done meanwhile. Attributes: done: iterations; told: by seconds of a cut."""

    def __init__(self, spaces: Namespaces) -> None:
        self._spaces = spaces
        self.done = 0
        self.told: dict[str, int] = {}

    def cut(self, seconds: int) -> None:
        """Cuts the link for so long."""
        self.told[f"actors before {seconds}"] = len(self._spaces.actors())
        self._spaces.link("down")
        time.sleep(SETTLES)
        begun = self.done
        time.sleep(seconds - SETTLES)
        self.told[f"while cut for {seconds}"] = self.done - begun
        self._spaces.link("up")

    def wait_for(self, iteration: int) -> None:
        """Returns once so many are done."""
        while self.done < iteration:
            time.sleep(0.1)


def facts_of(run: Run) -> dict[str, Any]:
    """Of what the servers counted, and what the workers told."""
    generations = sorted({event.generation for event in run.trace})
    batches = {g: [n for e in run.trace for n in e.batches if e.generation == g] for g in generations}
    assigned = {steps.generation: steps.assignment for steps in run.counted}
    pushes = [event for event in run.trace if event.kind == "push" and event.generation in assigned]
    return {
        "restarts": run.restarts,
        "iter": run.iter,
        "losses": len(run.losses),
        "loss": float(np.mean(run.losses[-20:])),
        "first_loss": float(np.mean(run.losses[:20])),
        "workers": [max(e.worker for e in run.trace if e.generation == g) + 1 for g in generations],
        "twice": sum(len(numbers) - len(set(numbers)) for numbers in batches.values()),
        "others": sum(list(e.batches) != assigned[e.generation].batches(e.worker, e.clock) for e in pushes),
        "steps": sum(steps.end[0] - steps.first[0] for steps in run.counted),
        "batches": len(run.batches),
        "whole": run.batches == list(range(len(run.batches))),
        "snapshots": run.snapshots,
    }


if __name__ == "__main__":
    main()
