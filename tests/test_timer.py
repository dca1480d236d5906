from __future__ import annotations

import logging
import time

import pytest

import caffe


def test_it_measures_between_start_and_stop() -> None:
    timer = caffe.Timer()
    begin = time.perf_counter()
    timer.start()
    time.sleep(0.02)
    timer.stop()
    elapsed = (time.perf_counter() - begin) * 1e3
    assert 20 <= timer.ms <= elapsed
    first = timer.ms
    time.sleep(0.01)
    timer.stop()
    assert timer.ms == first


def test_reading_stops_it_and_starting_again_restarts_it() -> None:
    timer = caffe.Timer()
    timer.start()
    time.sleep(0.03)
    assert timer.ms >= 30
    timer.start()
    assert timer.ms < 30


def test_reading_before_it_ran_gives_zero_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "pycaffe"):
        assert caffe.Timer().ms == 0
    assert caplog.messages == ["Timer has never been run before reading time."]
