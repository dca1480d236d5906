"""Between whole parameters, as solver states and nets hold them, and the servers' parts of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pycaffe.blob import FloatArray
from pycaffe.cluster.protocol.messages import Part, PieceState
from pycaffe.cluster.protocol.shards import Piece, pieces_of_server

__all__ = ["join_parts", "split_into_parts"]


def split_into_parts(
    values: Sequence[FloatArray],
    histories: Sequence[Sequence[FloatArray]],
    pieces: Sequence[Piece],
    *,
    iteration: int = 0,
    workers: int = 1,
    rates: dict[str, Any] | None = None,
) -> list[Part]:
    """What each server begins with.

    Args:
        values: by parameter, flat float32.
        histories: by history of the rule, then by parameter: the order of solver states.
        pieces: of all servers.
        iteration: how many updates there were.
        workers: W of the checkpoint that the parts belong to.
        rates: current_step, minimum_loss and iter_last_event of a solver state; None for a new run.
    """
    parts = []
    for server in range(1 + max(piece.server for piece in pieces)):
        states = {
            piece.index: PieceState(
                values[piece.parameter][piece.start : piece.stop],
                tuple(history[piece.parameter][piece.start : piece.stop] for history in histories),
                iteration,
            )
            for piece in pieces_of_server(pieces, server)
        }
        parts.append(Part(0, server, 0, (0,) * workers, states, dict(rates or {})))
    return parts


def join_parts(
    parts: Sequence[Part], pieces: Sequence[Piece], sizes: Sequence[int]
) -> tuple[list[FloatArray], list[list[FloatArray]]]:
    """The whole parameters of a checkpoint: values by parameter, histories as in `split_into_parts`."""
    states = {index: state for part in parts for index, state in part.pieces.items()}
    values = [np.empty(size, np.float32) for size in sizes]
    count = len(next(iter(states.values())).history)
    histories = [[np.empty(size, np.float32) for size in sizes] for _ in range(count)]
    for piece in pieces:
        state = states[piece.index]
        values[piece.parameter][piece.start : piece.stop] = state.value
        for history, array in zip(histories, state.history):
            history[piece.parameter][piece.start : piece.stop] = array
    return values, histories
