"""10,000 orders of events: whatever is lost, late, repeated or dead, a run ends, and as it should."""

from __future__ import annotations

import numpy as np
import pytest

from pycaffe.cluster.protocol.messages import Checkpoint, Mode
from tests.cluster.protocol.marked_pieces import use_marked_pieces
from tests.cluster.protocol.simulated_run import Plan, SimulatedRun

SYNC, SSP, ASYNC = Mode("sync", 0), Mode("ssp", 1), Mode("async", None)
MEMBERS = ("join", "leave", "worker", "server", "no room", "checkpoint")
PLANS = {
    "sync": Plan(SYNC, max_iter=3, interval=2, faults=("worker", "server", "checkpoint")),
    "sync, three workers": Plan(SYNC, workers=3),
    "sync, clipping": Plan(SYNC, clip=1.5),
    "sync, never a checkpoint": Plan(SYNC, interval=0, most_faults=3),
    "sync, joining and leaving": Plan(SYNC, faults=MEMBERS, most_faults=3, min_workers=1, max_workers=3),
    "ssp": Plan(SSP, max_iter=3, interval=2, faults=("worker", "server", "checkpoint")),
    "ssp, staleness 0": Plan(Mode("ssp", 0)),
    "ssp, joining and leaving": Plan(SSP, faults=MEMBERS, most_faults=3, min_workers=1, max_workers=3),
    "async": Plan(ASYNC, max_iter=3, interval=2, faults=("worker", "server", "checkpoint")),
    "async, joining and leaving": Plan(ASYNC, faults=MEMBERS, most_faults=3, min_workers=1, max_workers=3),
}
SEEDS = 1000  # of each plan


def run(plan: Plan, seed: int) -> Checkpoint:
    simulation = SimulatedRun(plan, seed)
    try:
        result = simulation.run()
        if simulation.fixed:
            for part in result.parts:
                for index, state in part.pieces.items():
                    assert np.array_equal(state.value, simulation.versions[plan.max_iter][index])
        assert result.iteration == plan.max_iter
    except BaseException:
        print(f"Seed {seed} of {plan}")
        raise
    return result


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_a_run_comes_to_its_end(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    use_marked_pieces(monkeypatch)
    for seed in range(SEEDS):
        result = run(plan, seed)
        if plan.mode.name == "ssp" and len(result.clocks) == plan.workers and result.base == 0:
            assert result.clocks == (plan.max_iter,) * plan.workers
