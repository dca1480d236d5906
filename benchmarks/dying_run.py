"""A run of 4 workers and 2 servers in which processes are killed; of bench_cluster.py's section `faults`.

    dying_run.py SOLVER SEED [SNAPSHOT]

Without a snapshot: at random iterations 3 workers, a server, and at last this process die. What happened is appended
to told.jsonl: {"death": who} and, of each checkpoint, {"iteration": its own, "batches": that its values come from}.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import signal
import sys

from pycaffe.cluster import train
from pycaffe.cluster.protocol.messages import Checkpoint
from pycaffe.cluster.training.recorder import Recorder
from pycaffe.solvers.solver import read_solver_param


class Listener(logging.Handler):
    """Notes the processes of the run."""

    def __init__(self) -> None:
        super().__init__()
        self.pids: dict[str, list[int]] = {"worker": [], "server": [], "driver": [os.getpid()]}

    def emit(self, record: logging.LogRecord) -> None:
        ready = re.match(r"(Worker|Server).* is ready: pid (\d+)", record.getMessage())
        if ready:
            self.pids[ready[1].lower()].append(int(ready[2]))


def main() -> None:
    solver, seed, snapshot = sys.argv[1:]
    listener = Listener()
    logger = logging.getLogger("pycaffe")
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    dice = random.Random(int(seed))
    iterations = read_solver_param(solver).max_iter
    moments = sorted(dice.sample(range(iterations // 10, iterations * 6 // 10), 4))
    victims = dice.sample(["worker", "worker", "worker", "server"], 4)
    deaths = [] if snapshot else [*zip(moments, victims), (dice.randrange(iterations * 7 // 10, iterations), "driver")]
    with open("told.jsonl", "a", buffering=1, encoding="utf-8") as told:
        forget_before = Recorder.forget_before

        def tell(recorder: Recorder, checkpoint: Checkpoint) -> None:
            batches = [batch for steps in checkpoint.counted for batch in steps.batches()]
            told.write(json.dumps({"iteration": checkpoint.iteration, "batches": batches}) + "\n")
            forget_before(recorder, checkpoint)

        def progress(iteration: int, loss: float) -> None:
            while deaths and iteration >= deaths[0][0]:
                _, kind = deaths.pop(0)
                told.write(json.dumps({"death": kind}) + "\n")
                victim = dice.choice(listener.pids[kind])
                listener.pids[kind].remove(victim)
                os.kill(victim, signal.SIGKILL)

        Recorder.forget_before = tell  # type: ignore[method-assign]
        train(solver, workers=4, servers=2, snapshot=snapshot or None, on_progress=progress)


if __name__ == "__main__":
    main()
