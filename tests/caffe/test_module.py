"""The module `caffe`: every name of the original's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import caffe
from pycaffe import devices
from pycaffe.errors import DeviceError, InputError
from tests.net.nets import data, ip, net_of, run_python

NAMES = """
AdaDeltaSolver AdaGradSolver AdamSolver Blob Classifier Detector Layer NCCL NesterovSolver Net NetSpec RMSPropSolver
SGDSolver TEST TRAIN Timer __version__ get_solver has_nccl init_log io layer_type_list layers log
params proto set_device set_mode_cpu set_mode_gpu set_multiprocess set_random_seed set_solver_count set_solver_rank
solver_count solver_rank to_proto
""".split()

TYPES = """
AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data Deconvolution
Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss Im2col ImageData
InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData MultinomialLogisticLoss PReLU Parameter Pooling
Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss
Split Swish TanH Threshold Tile WindowData
""".split()


@pytest.mark.parametrize("name", NAMES)
def test_it_has(name: str) -> None:
    assert hasattr(caffe, name)


def test_phases_are_numbers() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert caffe.proto.caffe_pb2.TEST == caffe.TEST


def test_layer_type_list_is_sorted_and_complete() -> None:
    types = list(caffe.layer_type_list())
    assert types == sorted(types)
    assert set(TYPES) <= set(types)


def test_solver_counts_of_the_originals_parallel_training() -> None:
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    try:
        caffe.set_solver_count(4)
        caffe.set_solver_rank(2)
        caffe.set_multiprocess(True)
        assert (caffe.solver_count(), caffe.solver_rank()) == (4, 2)
    finally:
        caffe.set_solver_count(1)
        caffe.set_solver_rank(0)
        caffe.set_multiprocess(False)
    assert caffe.has_nccl() is True  # torch is installed


def test_the_gpu_switches_fall_back_and_the_net_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("gpu_count", lambda: 0), ("_warned", False), ("_mode_gpu", False)):
        monkeypatch.setattr(devices, name, value)
    monkeypatch.delenv("PYCAFFE_REQUIRE_GPU", raising=False)
    with pytest.warns(RuntimeWarning, match="running on the CPU") as caught:
        caffe.set_device(0)
        caffe.set_mode_gpu()
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert net_of(data(2, 3) + ip("ip", "data", 4)).forward()["ip"].shape == (2, 4)
    monkeypatch.setenv("PYCAFFE_REQUIRE_GPU", "1")
    with pytest.raises(DeviceError, match="PYCAFFE_REQUIRE_GPU=1"):
        caffe.set_mode_gpu()


def test_set_random_seed_seeds_fillers_and_torch() -> None:
    import torch

    text = data(2, 3) + ip("ip", "data", 4)

    def draw(seed: int) -> tuple[np.ndarray, float]:
        caffe.set_random_seed(seed)
        return net_of(text).params["ip"][0].data.copy(), float(torch.rand(1))

    (first, number), (again, same), (other, differs) = draw(5), draw(5), draw(6)
    np.testing.assert_array_equal(first, again)
    assert number == same != differs
    assert (first != other).any()


def test_a_blob_is_what_the_original_shows() -> None:
    blob = net_of(data(2, 3, 4, 5)).blobs["data"]
    assert isinstance(blob, caffe.Blob)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 4, 5, 120)
    assert list(blob.shape) == [2, 3, 4, 5]
    assert (blob.data.dtype, blob.diff.dtype) == (np.float32, np.float32)
    blob.reshape(7, 1)
    assert blob.data.shape == blob.diff.shape == (7, 1)


def test_quiet_by_default(tmp_path) -> None:
    (tmp_path / "net.prototxt").write_text(data(2, 3) + ip("ip", "data", 4))
    script = """
import caffe
net = caffe.Net("net.prototxt", caffe.TEST)
net.forward()
net.save("w.caffemodel")
net = caffe.Net("net.prototxt", "w.caffemodel", caffe.TEST)
net.forward()
net.backward()
"""
    done = run_python(script, cwd=tmp_path, env={"GLOG_minloglevel": ""})
    assert (done.stdout, done.stderr) == ("", "")


def test_paths_in_prototxts_are_relative_to_the_working_directory(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.full((6, 5, 3), 9, np.uint8))
    (tmp_path / "list.txt").write_text("a.png 3\n")
    text = (
        'layer { name: "d" type: "ImageData" top: "x" top: "y" image_data_param { source: "list.txt" batch_size: 1 } }'
    )
    monkeypatch.chdir(tmp_path)
    out = net_of(text).forward()
    assert out["x"].shape == (1, 3, 6, 5)
    assert (out["x"] == 9).all()
    assert out["y"] == 3
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(Exception, match=r"list\.txt.*") as caught:
        net_of(text)
    assert str(tmp_path / "elsewhere") in str(caught.value)


def test_errors_are_runtime_errors_as_scripts_catch_them() -> None:
    with pytest.raises(RuntimeError):
        caffe.Net("no_such.prototxt", caffe.TEST)
    with pytest.raises(InputError, match="Unknown phase"):
        caffe.Net("no_such.prototxt", 7)
