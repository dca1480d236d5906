from __future__ import annotations

import json

from tests.net.nets import run_python

HEAVY = {
    "torch",
    "ray",
    "cv2",
    "lmdb",
    "plyvel",
    "h5py",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "skimage",
    "scipy",
    "pydot",
    "matplotlib",
}


def test_import_caffe_is_quick_light_and_silent() -> None:
    # Processor time, since the clock would count what others do on this machine while the suite runs. Without them the
    # two differ little: importing waits for nothing but files, which the first of the three runs brings into memory.
    script = """
import json, sys, time
begin = time.process_time()
import caffe
seconds = time.process_time() - begin
print(json.dumps([seconds, sorted(sys.modules)]))
"""
    runs = [run_python(script, env={"OPENBLAS_NUM_THREADS": "1"}) for _ in range(3)]
    assert [done.stderr for done in runs] == ["", "", ""]
    seconds, modules = zip(*(json.loads(done.stdout) for done in runs))
    assert min(seconds) < 0.5
    assert not HEAVY & set(modules[0])


def test_a_forward_needs_neither_torch_nor_ray_nor_cv2(tmp_path) -> None:
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 2 dim: 3 } } }'
        'layer { name: "s" type: "Softmax" bottom: "d" top: "s" }'
    )
    script = """
import sys
import caffe
net = caffe.Net("net.prototxt", caffe.TEST)
print(net.forward()["s"].sum(), sorted({"torch", "ray", "cv2", "h5py", "lmdb"} & set(sys.modules)))
"""
    done = run_python(script, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("2.0 []\n", "")


def test_star_import_and_submodules() -> None:
    script = """
from caffe import *
import caffe.io, caffe.pycaffe, caffe.net_spec, caffe.coord_map, caffe.draw, caffe.classifier, caffe.detector
from caffe.proto import caffe_pb2
from caffe import layers as L, params as P
print(Net is caffe.pycaffe.Net is caffe.Net, L is caffe.layers, TEST, TRAIN, P.Pooling.MAX)
"""
    assert run_python("import caffe\n" + script).stdout == "True True 1 0 0\n"
