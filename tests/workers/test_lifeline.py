"""A process that does nothing for its own end: it sleeps in C, with the interpreter's lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pycaffe.workers.lifeline import Lifeline, another_end, bind
from tests.workers.forked_pool import await_end, nothing_left_behind

HANG = "import ctypes, sys; print(flush=True); ctypes.PyDLL(None).sleep(1000)"


@pytest.fixture
def lifeline() -> Iterator[Lifeline]:
    with nothing_left_behind():
        made = Lifeline()
        yield made
        made.close()
        made.close()


def start(lifeline: Lifeline) -> subprocess.Popen[bytes]:
    end = another_end(lifeline.end)
    assert end is not None
    process = subprocess.Popen([sys.executable, "-c", HANG], pass_fds=[end], stdout=subprocess.PIPE)
    bind(end, process.pid)
    os.close(end)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_its_end_ends_all_processes_also_those_that_are_stopped(lifeline: Lifeline) -> None:
    processes = [start(lifeline), start(lifeline)]
    processes[1].send_signal(signal.SIGSTOP)
    ends = [os.pidfd_open(process.pid) for process in processes]
    lifeline.close()
    for process, end in zip(processes, ends):
        await_end(end, 1.0)
        with process:
            assert process.wait() == -signal.SIGKILL


def test_a_child_that_is_forked_does_not_hold_it(lifeline: Lifeline) -> None:
    process = start(lifeline)
    until, release = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(release)
        os.read(until, 1)
        os._exit(0)
    end = os.pidfd_open(process.pid)
    lifeline.close()
    await_end(end, 1.0)
    os.close(release)
    os.close(until)
    os.waitpid(child, 0)
    with process:
        pass


def test_systems_that_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    without = Lifeline()
    assert another_end(without.end) is None
    bind(another_end(without.end), os.getpid())
    without.close()
