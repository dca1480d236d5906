"""The mean average precision of detections, which SSD's solvers log with `eval_type: "detection"` (TestDetection)."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from pycaffe.errors import SolverError
from pycaffe.net import Net
from pycaffe.solvers.progress import log_progress

__all__ = ["DetectionTally", "average_precision", "check_evaluation"]

Array = npt.NDArray[Any]
VERSIONS = ("11point", "MaxIntegral", "Integral")
SMALLEST_STEP = 1e-6  # of the recall that counts as one
logger = logging.getLogger("pycaffe.solver")


def check_evaluation(param: Any) -> None:
    """Raises SolverError where the SolverParameter's `eval_type` or `ap_version` is none."""
    if param.eval_type not in ("classification", "detection"):
        raise SolverError(f"Unknown evaluation type: {param.eval_type} (known: classification, detection).")
    if param.eval_type == "detection" and param.ap_version not in VERSIONS:
        raise SolverError(f"Unknown ap_version: {param.ap_version} (known: {', '.join(VERSIONS)}).")


def average_precision(scores: Array, true: Array, objects: int, version: str) -> float:
    """The area below precision over recall.

    Args:
        scores: of the detections of a class, (n,).
        true: 1 where a detection found an object, 0 where it is false, (n,).
        objects: how many there were.
        version: "11point" (VOC 2007: the mean of the best precisions at recalls from 0, 0.1, ... 1 on), "MaxIntegral"
            (VOC 2012: integrates the best precision from each recall on), or "Integral" (the precision itself).
    """
    if len(scores) == 0 or objects == 0:
        return 0.0
    true = true[np.argsort(-scores, kind="stable")]
    found = np.cumsum(true)
    recall = (found / objects).astype(np.float32)
    precision = (found / np.arange(1, len(true) + 1)).astype(np.float32)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if version == "11point":
        return float(sum(best[recall >= point / 10].max(initial=0) for point in range(11)) / 11)
    steps = np.diff(recall, prepend=np.float32(0))
    heights = np.append(best[:1], best[:-1]) if version == "MaxIntegral" else precision
    return float((heights * steps)[steps > SMALLEST_STEP].sum(dtype=np.float64))


class DetectionTally:
    """Collects what DetectionEvaluate says of the batches of a test, and logs the mean average precision.

    Args:
        net: a test net.
        param: a SolverParameter: `ap_version`, `show_per_class_result`.
    """

    def __init__(self, net: Net, param: Any) -> None:
        self.net = net
        self.param = param
        self._rows: dict[str, list[Array]] = {}

    def add(self) -> None:
        """Takes the outputs of a batch.

        Raises:
            SolverError: one is no output of DetectionEvaluate.
        """
        for name in self.net.outputs:
            values = self.net.blobs[name].raw_data()
            if values.ndim != 4 or values.shape[3] != 5:
                raise SolverError(
                    f'Check failed: result[j]->width() == 5. With eval_type: "detection" all outputs of the test net '
                    f"must be those of DetectionEvaluate layers; {name!r} has the shape {values.shape!r}. Let a "
                    "Silence layer take what is none."
                )
            self._rows.setdefault(name, []).append(values.reshape(-1, 5).copy())

    def log(self) -> None:
        """Logs a line `    Test net output #0: detection_eval = 0.77` for each output."""
        for index, (name, parts) in enumerate(self._rows.items()):
            mean = self._mean(np.concatenate(parts))
            log_progress("solver.cpp:546", "    Test net output #%d: %s = %g", index, name, mean)

    def _mean(self, rows: Array) -> float:
        """Of the classes' average precisions; a class without detections counts as 0, as in the fork."""
        is_count = rows[:, 0] == -1
        counts, detections = rows[is_count], rows[~is_count]
        detections = detections[(detections[:, 3:] != 0).any(axis=1)]  # neither true nor false: of a difficult object
        labels = np.unique(counts[:, 1]).astype(int)
        total = 0.0
        for label in labels:
            own = detections[detections[:, 1] == label]
            if len(own) == 0:
                logger.warning("Missing true_pos for label: %d", label, extra={"place": "solver.cpp:525"})
                continue
            objects = int(counts[counts[:, 1] == label, 2].sum())
            value = average_precision(own[:, 2], own[:, 3], objects, self.param.ap_version)
            total += value
            if self.param.show_per_class_result:
                log_progress("solver.cpp:540", "class%d: %g", label, value)
        return total / max(len(labels), 1)
