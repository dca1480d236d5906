"""Between a run's checkpoints and Caffe's snapshots: the solver of the process that began the run.

snapshot, weights, fillers ─→ RunSolver ─→ parts() ─→ servers ─→ … ─→ parts ─→ RunSolver.take ─→ snapshot
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.cluster.data_position import DataPosition, Place
from pycaffe.cluster.messages import Part, PieceState
from pycaffe.cluster.shards import Piece, pieces_of_server
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
        self.place = self.data.present()
        return self.place

    def parts(self, pieces: Sequence[Piece], servers: int, workers: int) -> tuple[Part, ...]:
        """What is held here, as servers take it."""
        values, histories = self._arrays()
        policy = self._learning_rate
        rates: dict[str, Any] = {
            "current_step": policy.current_step,
            "minimum_loss": policy.minimum_loss,
            "iter_last_event": policy.iter_last_event,
        }
        if self._restored_losses is not None:
            rates["smoothed"] = self._restored_losses

        def state(piece: Piece) -> PieceState:
            part = slice(piece.start, piece.stop)
            history = tuple(array[part].copy() for array in histories[piece.parameter])
            return PieceState(values[piece.parameter][part].copy(), history, self.iter)

        return tuple(
            Part(
                0, server, 0, (0,) * workers, {p.index: state(p) for p in pieces_of_server(pieces, server)}, rates
            )
            for server in range(servers)
        )  # fmt: skip

    def take(self, parts: Sequence[Part], pieces: Sequence[Piece], iteration: int) -> None:
        """Makes a checkpoint what is held here."""
        values, histories = self._arrays()
        for part in parts:
            for index, state in part.pieces.items():
                piece = pieces[index]
                where = slice(piece.start, piece.stop)
                values[piece.parameter][where] = state.value
                for array, history in zip(histories[piece.parameter], state.history):
                    array[where] = history
        rates = parts[0].rates
        self._learning_rate.restore(rates["current_step"], rates["minimum_loss"], rates["iter_last_event"])
        self.iter = iteration

    def _arrays(self) -> tuple[list[FloatArray], list[list[FloatArray]]]:
        """The values of each parameter and its histories, flat."""
        self._update.own_values()
        parameters = self._update._parameters
        history = self._update.history()
        values = [parameter.blob.data_storage.changing()[: parameter.blob.count] for parameter in parameters]
        return values, [history[index :: len(parameters)] for index in range(len(parameters))]

    def values(self) -> list[FloatArray]:
        """Copies of the parameters, flat; of shared ones the owner."""
        return [values.copy() for values in self._arrays()[0]]

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
