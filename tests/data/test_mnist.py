"""The digits that scripts/make_mnist makes databases of."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np

from tests.layers.case import build

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "make_mnist"
FIRST = {"mnist_train_lmdb": [5, 0, 4, 1, 9, 2, 1, 3], "mnist_test_lmdb": [7, 2, 1, 0, 4, 1, 4, 9]}


def test_databases_of_mnist() -> None:
    made = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    folder = pathlib.Path(made.stdout.strip())
    for name, count in (("mnist_train_lmdb", 60000), ("mnist_test_lmdb", 10000)):
        net = build(
            'layer { name: "l" type: "Data" top: "data" top: "label" transform_param { scale: 0.00390625 } '
            f'data_param {{ source: "{folder / name}" backend: LMDB batch_size: {count // 10} prefetch: 0 }} }}'
        )
        labels = []
        for _ in range(10):
            net.forward()
            labels.append(net.blobs["label"].data.copy())
            assert net.blobs["data"].shape == (count // 10, 1, 28, 28)
            assert (net.blobs["data"].data.min(), net.blobs["data"].data.max()) == (0, 255 / 256)
        assert labels[0][:8].tolist() == FIRST[name]
        counts = np.bincount(np.concatenate(labels).astype(int), minlength=10)
        assert counts.sum() == count
        assert counts.min() > 0.08 * count
