"""The files and folders that a run's nets read: they have to be on every node under the same path."""

from __future__ import annotations

import os
from typing import Any

from pycaffe.solvers.nets import net_sources

__all__ = ["data_paths"]


def data_paths(param: Any) -> list[str]:
    """Those that the data layers of a SolverParameter's nets name, after the folder that relative paths are of."""
    found = [os.getcwd()]
    for layer in (layer for source in net_sources(param) for layer in source.param.layer):
        readers = [value for field, value in layer.ListFields() if field.name.endswith("data_param")]
        named = [*(getattr(reader, "source", "") for reader in readers), layer.transform_param.mean_file]
        # What stands before each listed name need not be a folder, but one is in it.
        named += [os.path.dirname(getattr(reader, "root_folder", "")) for reader in readers]
        found += [name for name in named if name]
    return found
