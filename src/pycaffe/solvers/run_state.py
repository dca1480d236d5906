"""The file beside a solver state that makes a resumed run equal to one that was never interrupted, bit for bit.

    lenet_iter_500.caffemodel                 weights                }  what the original writes and reads
    lenet_iter_500.solverstate                iteration, history     }
    lenet_iter_500.solverstate.resume.json    where each reader of data is, its shuffle, the layers' random generators,
                                              recurrent states, the losses of the average

Without it a run resumes as in the original: the data begin anew. It belongs to one solver state, which it knows by size
and checksum: the original may have written another state under the same name since.
"""

from __future__ import annotations

import json
import os
import random
import warnings
import zlib
from typing import Any

import numpy as np

from pycaffe.errors import DataError
from pycaffe.net import Net
from pycaffe.proto.replace_file import replacing

__all__ = [
    "fingerprint",
    "read_run_state",
    "restore_layers",
    "restore_python_random",
    "run_state_path",
    "save_layers",
    "save_python_random",
    "write_run_state",
]

VERSION = 1
SAMPLE = 65536  # bytes at each end of a solver state that go into its checksum


def run_state_path(solver_state: str) -> str:
    """The name of the file that belongs to a solver state."""
    return f"{solver_state}.resume.json"


def fingerprint(path: str) -> dict[str, int]:
    """What tells a solver state from others: its size and a checksum of its ends, where iteration and momentum are."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        checksum = zlib.crc32(file.read(SAMPLE))
        file.seek(max(size - SAMPLE, 0))
        checksum = zlib.crc32(file.read(SAMPLE), checksum)
    return {"size": size, "crc32": checksum}


def write_run_state(solver_state: str, written: str, state: dict[str, Any]) -> None:
    """Writes the file for a solver state, whose bytes are already in the file `written`. Raises OSError."""
    content = {"version": VERSION, "solver_state": fingerprint(written), **state}
    with replacing(run_state_path(solver_state)) as temporary, open(temporary, "x", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def read_run_state(solver_state: str) -> dict[str, Any] | None:
    """What was written for that solver state; None where there is none, with a warning where there is another's."""
    path = run_state_path(solver_state)
    try:
        with open(path, encoding="utf-8") as file:
            state: dict[str, Any] = json.load(file)
        if state.get("version") == VERSION and state.get("solver_state") == fingerprint(solver_state):
            return state
        reason = "it belongs to another solver state"
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError) as error:
        reason = f"it is damaged ({error})"
    warnings.warn(
        f"{path} is not used: {reason}. The data and random numbers begin anew, as in the original.",
        RuntimeWarning,
        stacklevel=4,
    )
    return None


def save_layers(net: Net) -> dict[str, Any]:
    """By layer name what the layers carry from one forward to the next."""
    states = {node.name: node.layer.state() for node in net._graph.nodes}
    return {name: state for name, state in states.items() if state}


def restore_layers(net: Net, states: dict[str, Any]) -> None:
    """Puts the layers where `save_layers` found them; those that the state does not know stay as they are.

    Where the data have changed since, the layer begins them anew, with a warning.
    """
    for node in net._graph.nodes:
        if node.name in states:
            try:
                node.layer.restore(states[node.name])
            except DataError as error:
                warnings.warn(f"{error} Layer {node.name!r} begins its data anew.", RuntimeWarning, stacklevel=4)


def save_python_random() -> dict[str, Any]:
    """The process-wide generators that users' Python layers draw from."""
    version, internal, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {"random": [version, list(internal), gauss], "numpy": [kind, np.asarray(keys).tolist(), *rest]}


def restore_python_random(state: dict[str, Any]) -> None:
    """Puts the process-wide generators where `save_python_random` found them."""
    version, internal, gauss = state["random"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
