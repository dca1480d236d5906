"""Between a run's checkpoints and Caffe's snapshots: the solver of the process that began the run.

snapshot, weights, fillers ─→ RunSolver ─→ parts() ─→ servers ─→ … ─→ parts ─→ RunSolver.take ─→ snapshot
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.cluster.protocol.checkpoint_parts import join_parts, split_into_parts
from pycaffe.cluster.protocol.messages import Part
from pycaffe.cluster.protocol.shards import Piece
from pycaffe.cluster.training.data_position import DataPosition, Place
from pycaffe.solvers import Solver
from pycaffe.solvers.snapshot import check_prefix

__all__ = ["RunSolver"]


class RunSolver(Solver):
    """Holds what the run has learned; never computes. Writes and reads snapshots as one process does.

    Args:
        param: the SolverParameter.

    Attributes:
        data: where the run is in its data.
        run_state: what rank 0 last told of itself at the iteration that is held here; None where it told nothing.
    """

    def __init__(self, param: Any) -> None:
        super().__init__(param)
        if param.snapshot_after_train:
            check_prefix(param.snapshot_prefix)
        self.data = DataPosition(self.net)
        self.place = Place()
        self.run_state: dict[str, Any] | None = None

    def begin(self) -> Place:
        """The place in the data where the run begins, after `restore` where there is one."""
        self._update.own_values()
        self.place = self.data.present()
        return self.place

    def parts(self, pieces: Sequence[Piece], workers: int) -> tuple[Part, ...]:
        """What is held here, as servers take it."""
        policy = self._learning_rate
        rates: dict[str, Any] = {
            "current_step": policy.current_step,
            "minimum_loss": policy.minimum_loss,
            "iter_last_event": policy.iter_last_event,
        }
        if self._restored_losses is not None:
            rates["smoothed"] = self._restored_losses
        values, histories = self.values(), self._histories()
        return tuple(split_into_parts(values, histories, pieces, iteration=self.iter, workers=workers, rates=rates))

    def take(self, parts: Sequence[Part], pieces: Sequence[Piece], iteration: int) -> None:
        """Makes a checkpoint what is held here."""
        parameters = self._update._parameters
        values, histories = join_parts(parts, pieces, [parameter.blob.count for parameter in parameters])
        for parameter, array in zip(parameters, values):
            parameter.blob.data_storage.changing()[: array.size] = array
        for targets, arrays in zip(self._histories(), histories):
            for target, array in zip(targets, arrays):
                target[...] = array
        rates = parts[0].rates
        self._learning_rate.restore(rates["current_step"], rates["minimum_loss"], rates["iter_last_event"])
        self.iter = iteration

    def values(self) -> list[FloatArray]:
        """Copies of the parameters, flat; of shared ones the owner."""
        blobs = [parameter.blob for parameter in self._update._parameters]
        return [blob.data_storage.array()[: blob.count].copy() for blob in blobs]

    def _histories(self) -> list[list[FloatArray]]:
        """By history of the rule, then by parameter."""
        history, count = self._update.history(), len(self._update._parameters)
        return [history[first : first + count] for first in range(0, len(history), count)]

    def arrays_by_layer(self) -> dict[str, list[FloatArray]]:
        """Copies, as in `net.params`."""
        return {name: [np.array(blob.data) for blob in blobs] for name, blobs in self.net.params.items()}

    # -- what a snapshot holds beside parameters and histories

    def _run_state(self) -> dict[str, Any]:
        state = super()._run_state()
        if self.run_state is not None:
            state.update({key: self.run_state[key] for key in ("losses", "test", "train") if key in self.run_state})
        others = {name: s for name, s in state["train"].items() if name not in self.data.readers}
        state["train"] = {**others, **self.place.readers}
        return state

    def _restore_run_state(self, state: dict[str, Any]) -> None:
        super()._restore_run_state(state)
        self.run_state = state
