"""A net inside a user's own processes and threads: fork, spawn, Pool.map, a script at module level, no torch."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from pycaffe.net import Net
from tests.net.nets import data, ip, layer, net_of, normal, run_python

CONV = 'convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.1 } }'
SOFTMAX = layer("fc_soft", "Softmax", "fc", "prob")
TEXT = (
    data(1, 3, 24, 28)
    + layer("conv1", "Convolution", "data", rest=CONV)
    + layer("relu1", "ReLU", "conv1", "conv1")
    + layer("conv2", "Convolution", "conv1", rest=CONV)
    + layer("pool", "Pooling", "conv2", rest="pooling_param { pool: AVE kernel_size: 4 stride: 4 }")
    + ip("fc", "pool", 10)
    + SOFTMAX
)
SECONDS = 90  # generous: the machine may be busy, and only a hang takes for ever


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with deploy.prototxt and weights.caffemodel, and the answers for eight inputs."""
    (tmp_path / "deploy.prototxt").write_text(TEXT)
    net = net_of(TEXT)
    net.save(tmp_path / "weights.caffemodel")
    np.save(tmp_path / "want.npy", [net.forward(data=normal(1, 3, 24, 28, seed=i))["prob"][0].copy() for i in range(8)])
    return tmp_path


# -- threads


def run_threads(functions: list) -> None:
    failures: list[BaseException] = []

    def guarded(function) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(f,), daemon=True) for f in functions]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        assert not thread.is_alive()
    assert not failures, failures


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_threads_with_a_net_each(files: Path, engine: str) -> None:
    want = np.load(files / "want.npy")

    def work(first: int) -> None:
        net = Net(files / "deploy.prototxt", 1, weights=files / "weights.caffemodel", engine=engine)
        for i in range(first, first + 30):
            out = net.forward(data=normal(1, 3, 24, 28, seed=i % 8))["prob"][0]
            np.testing.assert_allclose(out, want[i % 8], rtol=1e-4, atol=1e-6)

    run_threads([lambda first=first: work(first) for first in range(4)])


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_threads_with_one_net_take_turns(files: Path, engine: str) -> None:
    """What each forward computes from its own inputs: the input and the output are read inside, before the next one."""
    net = Net(files / "deploy.prototxt", 1, weights=files / "weights.caffemodel", engine=engine)
    want = np.load(files / "want.npy")
    last = len(net.layers) - 1
    seen: list[tuple[float, np.ndarray]] = []
    net.after_forward(
        lambda index: (
            seen.append((float(net.blobs["data"].data[0, 0, 0, 0]), net.blobs["prob"].data[0].copy()))
            if index == last
            else None
        )
    )

    def work(first: int) -> None:
        for i in range(first, first + 10):
            net.forward(data=normal(1, 3, 24, 28, seed=i % 8))

    run_threads([lambda first=first: work(first) for first in range(4)])
    assert len(seen) == 40
    by_pixel = {float(normal(1, 3, 24, 28, seed=i)[0, 0, 0, 0]): i for i in range(8)}
    for pixel, prob in seen:
        np.testing.assert_allclose(prob, want[by_pixel[pixel]], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_other_threads_run_while_an_engine_does(engine: str) -> None:
    text = data(8, 32, 160, 160) + layer(
        "conv", "Convolution", "data", rest=CONV.replace("num_output: 8", "num_output: 96")
    )
    net = net_of(text, engine=engine, threads=1)
    net.forward()
    interval = sys.getswitchinterval()
    ticks, done = [], threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    counter = threading.Thread(target=count, daemon=True)
    counter.start()
    try:
        best = 1.0
        for _ in range(5):
            begin = time.perf_counter()
            net._run_from(1, 1)  # the engine alone
            end = time.perf_counter()
            inside = [begin, *(t for t in ticks if begin <= t <= end), end]
            best = min(best, max(np.diff(inside)) / (end - begin))
        assert end - begin > 5 * interval, "too fast to tell"
        assert best < 0.7  # a held GIL would leave one gap as long as the whole run
    finally:
        done.set()
        counter.join(SECONDS)


# -- fork

net_in_parent: Net | None = None


def child_answer(seed: int) -> np.ndarray:
    assert net_in_parent is not None
    return net_in_parent.forward(data=normal(1, 3, 24, 28, seed=seed))["prob"][0].copy()


def child_gradient(seed: int) -> np.ndarray:
    assert net_in_parent is not None
    net_in_parent.forward(data=normal(1, 3, 24, 28, seed=seed))
    net_in_parent.clear_param_diffs()
    net_in_parent.backward(prob=normal(1, 10, seed=seed))
    return net_in_parent.params["conv1"][0].diff.copy()


def map_in_forked(function, count: int = 8) -> list[np.ndarray]:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        results = pool.map_async(function, range(count)).get(SECONDS)
        pool.close()
        begin = time.monotonic()
        pool.join()
        assert time.monotonic() - begin < 30, "the children took their time to go"
    return results


@pytest.mark.parametrize("ran_before", [True, False])
@pytest.mark.parametrize("engine", ["torch", "onnxruntime", None])
def test_a_pool_forked_from_a_process_that_ran_the_net(files: Path, engine: str | None, ran_before: bool) -> None:
    global net_in_parent
    net_in_parent = Net(files / "deploy.prototxt", 1, weights=files / "weights.caffemodel", engine=engine)
    want = np.load(files / "want.npy")
    try:
        if ran_before:
            np.testing.assert_allclose(child_answer(0), want[0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(map_in_forked(child_answer), want, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(child_answer(1), want[1], rtol=1e-4, atol=1e-6)  # the parent goes on
        np.testing.assert_allclose(map_in_forked(child_answer), want, rtol=1e-4, atol=1e-6)
    finally:
        net_in_parent = None


def child_large(seed: int) -> tuple[np.ndarray, int]:
    import torch

    assert net_in_parent is not None
    answer = net_in_parent.forward(data=normal(1, 3, 96, 112, seed=seed))["prob"][0].copy()
    return answer, torch.get_num_threads()


def test_children_of_a_parent_whose_torch_ran_in_parallel() -> None:
    """OpenMP's threads do not survive the fork; a parallel region in the child would wait for them for ever."""
    import torch

    global net_in_parent
    threads = torch.get_num_threads()
    torch.set_num_threads(max(threads, 2))
    net_in_parent = net_of(TEXT.replace("dim: 24", "dim: 96").replace("dim: 28", "dim: 112"), engine="torch")
    try:
        want = [child_large(i)[0] for i in range(4)]
        got = map_in_forked(child_large, 4)
        np.testing.assert_allclose([answer for answer, _ in got], want, rtol=1e-4, atol=1e-6)
        assert [count for _, count in got] == [1] * 4
        assert torch.get_num_threads() == max(threads, 2)
    finally:
        net_in_parent = None
        torch.set_num_threads(threads)


def test_gradients_in_forked_children(files: Path) -> None:
    global net_in_parent
    net_in_parent = net_of("force_backward: true " + TEXT, weights=files / "weights.caffemodel")
    try:
        want = [child_gradient(i) for i in range(4)]
        got = map_in_forked(child_gradient, 4)
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-7)
        assert np.abs(want).max() > 1e-6
    finally:
        net_in_parent = None


def test_a_fork_while_another_thread_runs_the_net(files: Path) -> None:
    """The lock that the other thread holds at the fork is nobody's in the child."""
    global net_in_parent
    net_in_parent = net = Net(files / "deploy.prototxt", 1, weights=files / "weights.caffemodel")
    want = np.load(files / "want.npy")
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with net._lock:
            held.set()
            release.wait(SECONDS)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    assert held.wait(SECONDS)
    try:
        pool = multiprocessing.get_context("fork").Pool(1)
        got = pool.map_async(child_answer, range(3)).get(SECONDS)
        pool.terminate()
        np.testing.assert_allclose(got, want[:3], rtol=1e-4, atol=1e-6)
    finally:
        release.set()
        thread.join(SECONDS)
        net_in_parent = None


def test_a_child_that_exits_by_itself(files: Path) -> None:
    """os.fork and an ordinary end of the interpreter: sessions of the parent must not be waited for."""
    script = """
import os, sys, time
import numpy as np
import caffe
net = caffe.Net("deploy.prototxt", "weights.caffemodel", caffe.TEST)
x = np.random.default_rng(0).standard_normal((1, 3, 24, 28)).astype(np.float32)
want = net.forward(data=x)["prob"].copy()
pid = os.fork()
if pid == 0:
    got = net.forward(data=x)["prob"]
    del net
    print('from the child')
    sys.exit(5 if np.allclose(got, want) else 3)
deadline = time.monotonic() + 60
while True:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    if time.monotonic() > deadline:
        os.kill(pid, 9)
        sys.exit("the child hangs")
    time.sleep(0.05)
print(os.waitstatus_to_exitcode(status))
"""
    done = run_python(script, cwd=files)
    assert (done.stdout, done.stderr) == ("from the child\n5\n", "")


# -- the scripts of the wild, unmodified

AT_MODULE_LEVEL = """
import numpy as np
import caffe

def get_image_data(i=0):
    return np.random.default_rng(i).standard_normal((1, 3, 24, 28)).astype(np.float32)

net = caffe.Net('deploy.prototxt', 'weights.caffemodel', caffe.TEST)
net.blobs['data'].data[...] = get_image_data()
out = net.forward()
print(out['prob'].argmax())
del net
"""
IN_A_POOL = """
import multiprocessing
import sys
import numpy as np
import caffe

def get_image_data(i):
    return np.random.default_rng(i).standard_normal((1, 3, 24, 28)).astype(np.float32)

def classify(i):
    net = caffe.Net('deploy.prototxt', 'weights.caffemodel', caffe.TEST)
    net.blobs['data'].data[...] = get_image_data(i)
    out = net.forward()
    answer = out['prob'].argmax(), out
    del net
    return answer

if __name__ == '__main__':
    multiprocessing.set_start_method(sys.argv[1])
    if sys.argv[2] == 'ran':
        classify(0)
    with multiprocessing.Pool(2) as pool:
        answers = pool.map(classify, range(8))
        pool.close()
        pool.join()
    for best, out in answers:
        assert out['prob'].argmax() == best
    print([int(best) for best, _ in answers])
"""


def test_the_script_at_module_level(files: Path) -> None:
    (files / "script.py").write_text(AT_MODULE_LEVEL)
    done = run_script(files)
    assert (done.stdout, done.stderr) == (f"{np.load(files / 'want.npy')[0].argmax()}\n", "")


def run_script(directory: Path, *arguments: str):
    done = subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("ran", ["ran", "fresh"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_script_in_a_pool(files: Path, method: str, ran: str) -> None:
    (files / "script.py").write_text(IN_A_POOL)
    done = run_script(files, method, ran)
    assert (done.stdout, done.stderr) == (f"{[int(p.argmax()) for p in np.load(files / 'want.npy')]}\n", "")


# -- without torch

WITHOUT_TORCH = """
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")

sys.meta_path.insert(0, NoTorch())
import numpy as np
import caffe
from pycaffe.errors import MissingExtra

class Double(caffe.Layer):
    def setup(self, bottom, top): pass
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff

x = np.random.default_rng(0).standard_normal((1, 3, 24, 28)).astype(np.float32)
want = np.load("want.npy")
caffe.set_random_seed(1)
net = caffe.Net("deploy.prototxt", caffe.TEST, weights="weights.caffemodel")
np.testing.assert_allclose(net.forward(data=x)["prob"][0], want[0], rtol=1e-4, atol=1e-6)
features = net.forward(end="relu1")["conv1"]
assert features.shape == (1, 8, 24, 28) and features.min() == 0 < features.max()
net.params["fc"][0].data[...] = 0
net.params["fc"][1].data[...] = np.arange(10)
np.testing.assert_allclose(net.forward()["prob"][0], np.exp(np.arange(10)) / np.exp(np.arange(10)).sum(), rtol=1e-4)
net.blobs["data"].reshape(2, 3, 24, 28)
assert net.forward()["prob"].shape == (2, 10)
net.save("saved.caffemodel")

open("python.prototxt", "w").write("force_backward: true\\n" + open("deploy.prototxt").read() + '''
layer { name: "double" type: "Python" bottom: "prob" top: "double" python_param { module: "__main__" layer: "Double" } }
''')
net = caffe.Net("python.prototxt", caffe.TEST, weights="weights.caffemodel")
np.testing.assert_allclose(net.forward(data=x)["double"][0], 2 * want[0], rtol=1e-4, atol=1e-6)
for _ in range(2):
    try:
        net.backward()
    except MissingExtra as error:
        assert "torch" in str(error) and 'pip install "pycaffe[train]"' in str(error), error
    else:
        sys.exit("backward without torch")
    np.testing.assert_allclose(net.forward(data=x)["double"][0], 2 * want[0], rtol=1e-4, atol=1e-6)
net.backward(start="double", end="double", double=np.ones((1, 10)))
assert (net.blobs["prob"].diff == 2).all()
np.testing.assert_allclose(net.forward(data=x)["double"][0], 2 * want[0], rtol=1e-4, atol=1e-6)
try:
    caffe.Net("deploy.prototxt", caffe.TRAIN).forward()
except MissingExtra as error:
    print(error)
"""


def test_inference_surgery_and_python_layers_without_torch(files: Path) -> None:
    (files / "script.py").write_text(WITHOUT_TORCH)
    done = run_script(files)
    assert 'pip install "pycaffe[train]"' in done.stdout
    assert done.stderr == ""
