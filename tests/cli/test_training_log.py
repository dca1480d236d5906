from __future__ import annotations

import math
import pathlib

import pytest

from pycaffe.cli._training_log import LogReader, TrainingLog, read_training_log
from pycaffe.errors import InputError

# As reference Caffe writes; times are chosen.
LOG = """\
I1231 23:59:50.000000   123 caffe.cpp:218] Using GPUs 0
I1231 23:59:50.500000   123 solver.cpp:44] Initializing solver from parameters: 
test_iter: 100
base_lr: 0.01
I1231 23:59:51.000000   123 solver.cpp:289] Solving LeNet
I1231 23:59:51.000001   123 solver.cpp:347] Iteration 0, Testing net (#0)
I1231 23:59:52.000000   123 solver.cpp:401] Test loss: 2.5
I1231 23:59:52.000000   123 solver.cpp:414]     Test net output #0: accuracy = 0.0861
I1231 23:59:52.000000   123 solver.cpp:414]     Test net output #1: loss = 2.41083 (* 1 = 2.41083 loss)
I1231 23:59:53.000000   123 solver.cpp:347] Iteration 0, Testing net (#1)
I1231 23:59:53.500000   123 solver.cpp:414]     Test net output #0: accuracy = 0.25
I1231 23:59:54.000000   123 solver.cpp:239] Iteration 0 (-1.4013e-45 iter/s, 0.19s/100 iters), loss = 2.36
I1231 23:59:54.000000   123 solver.cpp:258]     Train net output #0: loss = 2.35 (* 0.5 = 1.175 loss)
I1231 23:59:54.000000   123 solver.cpp:258]     Train net output #1: box = 7
I1231 23:59:54.000000   123 solver.cpp:258]     Train net output #2: box = -1e-05
I1231 23:59:54.000000   123 sgd_solver.cpp:112] Iteration 0, lr = 0.01
W1231 23:59:55.000000   123 blocking_queue.cpp:49] Waiting for data
I0101 00:00:10.000000   123 solver.cpp:239] Iteration 100 (6.25 iter/s, 16s/100 iters), loss = nan
I0101 00:00:10.000000   123 sgd_solver.cpp:112] Iteration 100, lr = 0.00992565
I0101 00:00:11.000000   123 solver.cpp:327] Iteration 110, loss = 0.5
"""  # noqa: W291 (the original's blank)


def values(log: TrainingLog) -> dict[str, dict[int, float]]:
    return {name: {i: point.value for i, point in points.items()} for name, points in log.series.items()}


def read(tmp_path: pathlib.Path, text: str) -> TrainingLog:
    path = tmp_path / "run.log"
    path.write_bytes(text.encode())
    return read_training_log(path)


def test_every_line_of_the_original(tmp_path: pathlib.Path) -> None:
    log = read(tmp_path, LOG)
    found = values(log)
    assert math.isnan(found["loss"].pop(100))
    assert found["loss"].pop(110) == 0.5  # without a rate
    assert found == {
        "test/(loss of the net)": {0: 2.5},
        "test/accuracy": {0: 0.0861},
        "test/loss": {0: 2.41083},
        "test 1/accuracy": {0: 0.25},
        "loss": {0: 2.36},
        "iterations/s": {100: 6.25},
        "train/loss": {0: 2.35},
        "train/box": {0: 7},
        "train/box #2": {0: -1e-5},
        "lr": {0: 0.01, 100: 0.00992565},
    }
    losses = [name for name, points in log.series.items() if next(iter(points.values())).is_loss]
    assert losses == ["test/(loss of the net)", "test/loss", "loss", "train/loss"]


def test_seconds_go_on_over_the_new_year(tmp_path: pathlib.Path) -> None:
    points = read(tmp_path, LOG).series["lr"]
    assert [point.seconds for point in points.values()] == pytest.approx([4, 20])


def test_a_log_from_before_the_rate_was_written(tmp_path: pathlib.Path) -> None:
    text = (
        "I0210 13:39:22.000000 25210 solver.cpp:204] Iteration 0, loss = 2.3\n"
        "I0210 13:39:24.500000 25210 solver.cpp:204] Iteration 50, loss = 1.5e-3\n"
    )
    assert values(read(tmp_path, text)) == {"loss": {0: 2.3, 50: 0.0015}, "iterations/s": {50: 20}}


PREFIX = "I0210 13:39:22.381027 25210 solver.cpp:239] "


@pytest.mark.parametrize(
    "torn",
    [
        f"{PREFIX}Iteration 200, loss = 1.7",  # the end of the file: perhaps 1.75
        f"{PREFIX}Iteration 200, loss = 1.7{PREFIX}Waiting for data\n",
        "027 25210 solver.cpp:239] Iteration 200, loss = 1.7\n",
        "I0210 13:39:22.38 25210 solver.cpp:239] Iteration 200, loss = 1.7\n",
        "I0299 13:39:22.381027 25210 solver.cpp:239] Iteration 200, loss = 1.7\n",
        f"{PREFIX}Iteration 200, loss = \n",
        f"{PREFIX}Iteration 200, loss = 1.7 and more\n",
        f"{PREFIX}Iteration 2\x0000, loss = 1.7\n",
        "\x1b[K\r 200/1000 iterations  loss 1.7\n",
    ],
)
def test_torn_lines_are_left_out(torn: str, tmp_path: pathlib.Path) -> None:
    whole = f"{PREFIX}Iteration 100, loss = 2.5\n"
    assert values(read(tmp_path, whole + torn)) == {"loss": {100: 2.5}}


def test_a_record_that_begins_within_a_line_is_read(tmp_path: pathlib.Path) -> None:
    text = f"{PREFIX}Iteration 100, loss = 2{PREFIX}Iteration 200, loss = 1.7\r\n"
    assert values(read(tmp_path, text)) == {"loss": {200: 1.7}}


def test_outputs_before_any_iteration_have_no_place() -> None:
    assert LogReader().read(f"{PREFIX}    Train net output #0: loss = 1\n") == []


def test_what_a_resumed_run_does_again_counts(tmp_path: pathlib.Path) -> None:
    iterations = [(0, 2.0), (10, 1.5), (20, 1.4), (10, 1.3), (15, 1.2)]
    text = "".join(f"{PREFIX}Iteration {i}, loss = {loss}\n" for i, loss in iterations)
    assert values(read(tmp_path, text))["loss"] == {0: 2.0, 10: 1.3, 15: 1.2}


def test_files_that_are_no_log(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"'.*run\.log' is no training log: it has no line like"):
        read(tmp_path, "hello\n")
    with pytest.raises(InputError, match=r"Could not read the log '.*none\.log': No such file or directory"):
        read_training_log(tmp_path / "none.log")
