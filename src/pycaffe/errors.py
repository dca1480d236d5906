"""Every error that pycaffe raises.

    CaffeError (RuntimeError)
    ├── ProtoError                 a prototxt or a binary message cannot be read
    ├── NetError                   a net cannot be built or run
    │   ├── UnknownLayerType
    │   ├── UnknownBottom
    │   ├── DuplicateTop
    │   ├── LayerError             a layer's own parameters or blob counts are wrong
    │   └── ShapeError             blobs do not fit each other
    ├── WeightsError               a caffemodel is damaged, or does not fit the net
    ├── InputError (ValueError)    an image or an array cannot be used
    ├── DataError                  a data source (LMDB, HDF5, image list) cannot be read
    ├── SolverError                a solver cannot be made, saved or restored
    │   └── SolversLost            another solver of a run is gone
    ├── DeviceError                a device that was named outright is not there
    ├── ExportError                a net cannot be exported
    │   └── ExportMismatch         the exported file computes something else
    ├── PoolError                  a pool cannot go on
    │   ├── ItemTimeout
    │   └── WorkerDied
    ├── ClusterError               a cluster cannot be joined, or cannot go on
    └── MissingExtra (ImportError) an optional library is not installed

Where original Caffe aborts the process (CHECK, LOG(FATAL)), pycaffe raises one of these. A message holds, in this
order: Caffe's own sentence (people search for it), where (file:line, layer, blob), expected and got, one thing to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CaffeError",
    "ClusterError",
    "DataError",
    "DeviceError",
    "DuplicateTop",
    "ExportError",
    "ExportMismatch",
    "InputError",
    "ItemTimeout",
    "LayerError",
    "MissingExtra",
    "NetError",
    "PoolError",
    "ProtoError",
    "ShapeError",
    "SolverError",
    "SolversLost",
    "UnknownBottom",
    "UnknownLayerType",
    "WeightsError",
    "WorkerDied",
    "did_you_mean",
]


class CaffeError(RuntimeError):
    """Base of every error of this package. Holds one message, so that each of them pickles."""


class ProtoError(CaffeError):
    """A prototxt or a binary message cannot be read."""


class NetError(CaffeError):
    """A net cannot be built or run."""


class UnknownLayerType(NetError):
    """No layer of that type is registered."""


class UnknownBottom(NetError):
    """A layer reads a blob that no layer before it makes."""


class DuplicateTop(NetError):
    """Two layers make the same blob."""


class LayerError(NetError):
    """A layer's parameters or blob counts are wrong."""


class ShapeError(NetError):
    """Blobs do not fit each other."""


class WeightsError(CaffeError):
    """A weights file is damaged or does not fit the net."""


class InputError(CaffeError, ValueError):
    """An image or an array cannot be used."""


class DataError(CaffeError):
    """A data source cannot be read."""


class SolverError(CaffeError):
    """A solver's parameters are wrong, or a snapshot cannot be written, is damaged or belongs to another net."""


class SolversLost(SolverError):
    """Another solver of a run that several train together is gone, or cannot be reached any more."""


class DeviceError(CaffeError):
    """A device that was named outright is not there."""


class ExportError(CaffeError):
    """A net cannot be exported; the message names the layer where it is one."""


class ExportMismatch(ExportError):
    """The exported file, run on the inputs of the check, computes something else than the net."""


class PoolError(CaffeError):
    """A pool cannot go on."""


class WorkerDied(PoolError):
    """A worker process ended while it ran an item."""


class ItemTimeout(PoolError):
    """An item took longer than the pool allows."""


class ClusterError(CaffeError):
    """A cluster cannot be joined, a node does not fit, or a run on it cannot go on."""


class MissingExtra(CaffeError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, library: str, extra: str, purpose: str) -> MissingExtra:
        """The error for `library`, which `pip install "pycaffe[extra]"` brings and `purpose` (a noun phrase) needs."""
        return cls(f'{purpose} needs {library}, which is not installed. Install it: pip install "pycaffe[{extra}]"')


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the known name closest to `name`, or an empty string where none is close.

    Capitals make no difference: ReLU is closest to relu.
    """
    lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.6)
    return f" Did you mean {lower[close[0]]!r}?" if close else ""
