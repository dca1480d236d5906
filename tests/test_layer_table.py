"""docs/layers.md is what scripts/layer_table prints."""

from __future__ import annotations

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent

# The layer types of Caffe 1.0, as layer_type_list() gives them there, with Clip and Swish of its last commits.
CAFFE_TYPES = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data
Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output
HingeLoss Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData
MultinomialLogisticLoss PReLU Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid
SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData
""".split()


def test_the_committed_table_is_what_the_script_prints() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "layer_table")]
    printed = subprocess.run(script, check=True, capture_output=True).stdout.decode()
    committed = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    assert committed == printed, "docs/layers.md is out of date: run scripts/layer_table --write"


def test_every_layer_of_caffe_is_in_the_table() -> None:
    page = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    listed = {line.split("[")[1].split("]")[0] for line in page.splitlines() if line.startswith("| [")}
    assert len(CAFFE_TYPES) == 61
    assert set(CAFFE_TYPES) - listed == set()
