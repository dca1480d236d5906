from __future__ import annotations

import pathlib
import re
from typing import Any

import numpy as np
import pytest

import pycaffe.cli
from pycaffe.net import TEST, Net
from tests.net.nets import ip, layer

SOURCE = """
layer { name: "data" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "%s" batch_size: 2 } }
"""


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    """A net over four records, two a batch."""
    import h5py

    generator = np.random.default_rng(4)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"] = generator.standard_normal((4, 5)).astype(np.float32)
        file["label"] = np.array([0, 2, 1, 2], np.float32)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'data.h5'}\n")
    path = tmp_path / "net.prototxt"
    path.write_text(
        SOURCE % (tmp_path / "list.txt")
        + ip("fc", "data", 3)
        + layer("loss", "SoftmaxWithLoss", "fc label", rest="loss_weight: 0.5")
        + layer("accuracy", "Accuracy", "fc label", "accuracy per_class")
        + layer("extra", "Silence", "fc", "", 'include { stage: "quiet" min_level: 1 }')
    )
    net = Net(str(path), TEST)
    net.params["fc"][0].data[...] = generator.standard_normal((3, 5))
    net.save(str(tmp_path / "w.caffemodel"))
    return path


def caffe_test(capsys: pytest.CaptureFixture[str], *words: Any, status: int = 0) -> list[str]:
    with pytest.raises(SystemExit) as end:
        pycaffe.cli.main(["test", *map(str, words)])
    printed = capsys.readouterr()
    assert (end.value.code, printed.out) == (status, ""), printed.err
    return [re.sub(r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ ", "", line) for line in printed.err.splitlines()]


def test_the_originals_lines(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = model.with_name("w.caffemodel")
    net = Net(str(model), TEST, weights=str(weights))
    batches = []
    for _ in range(3):
        outputs = net.forward()
        assert sorted(outputs) == ["accuracy", "loss", "per_class"]
        batches.append({name: values.copy().ravel() for name, values in outputs.items()})
    lines = caffe_test(capsys, "-model", model, "-weights", weights, "-iterations=3")
    expected = ["caffe.cpp:275] Use CPU.", "caffe.cpp:281] Running for 3 iterations."]
    for index, batch in enumerate(batches):
        expected += [f"caffe.cpp:304] Batch {index}, accuracy = {batch['accuracy'][0]:g}"]
        expected += [f"caffe.cpp:304] Batch {index}, loss = {batch['loss'][0]:g}"]
        expected += [f"caffe.cpp:304] Batch {index}, per_class = {value:g}" for value in batch["per_class"]]
    mean = {name: sum(batch[name] for batch in batches) / 3 for name in batches[0]}
    loss = float(mean["loss"][0])
    expected += [f"caffe.cpp:309] Loss: {0.5 * loss:g}"]
    expected += [f"caffe.cpp:321] accuracy = {mean['accuracy'][0]:g}"]
    expected += [f"caffe.cpp:321] loss = {loss:g} (* 0.5 = {0.5 * loss:g} loss)"]
    expected += [f"caffe.cpp:321] per_class = {value:g}" for value in mean["per_class"]]
    assert lines == expected


def test_fifty_batches_by_default_and_stages(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = caffe_test(
        capsys, "--model", model, "--weights", model.with_name("w.caffemodel"), "--stage", "quiet", "--level", 1
    )
    assert sum(", loss = " in line for line in lines) == 50


def test_what_cannot_be_carried_out(model: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Missing option '--weights'" in caffe_test(capsys, "--model", model, status=2)[-1]
    assert "none.caffemodel" in caffe_test(capsys, "--model", model, "--weights", "none.caffemodel", status=2)[-1]
    weights = model.with_name("w.caffemodel")
    lines = caffe_test(capsys, "--model", model, "--weights", weights, "--gpu", 99, status=2)
    assert "Device 'cuda:99' is not there" in lines[-1]
