"""Where a pool may live, and that nothing is left of it, however its end comes."""

from __future__ import annotations

import contextlib
import os
import pathlib
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.workers.forked_pool import await_end
from tests.workers.tiny_net import write_tiny_net

ROOT = pathlib.Path(__file__).parent.parent.parent
PREAMBLE = """
import os, signal, sys, threading, multiprocessing
import numpy as np
from pycaffe import Pool

class Item:
    def __init__(self, value): self.value = value

def fill(item):
    return np.full((3, 4, 5), item.value, np.float32)

def hang(item):
    with open(sys.argv[3], "wb") as file:
        file.write(b"x")
    threading.Event().wait()

def check():
    with Pool(*sys.argv[1:3], workers=2, preprocess=fill, outputs=["data"]) as pool:
        values = [result.outputs["data"][0, 0, 0] for result in pool.imap(Item(value) for value in range(20))]
    assert values == list(range(20)), values
"""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return write_tiny_net(tmp_path_factory.mktemp("net"))


def _heed_interrupts() -> None:
    """What a shell runs in the background ignores them, and so do the tests there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Script:
    """A script of its own, with all processes that it starts."""

    def __init__(self, code: str, net: tuple[str, str], folder: pathlib.Path, preamble: str = PREAMBLE) -> None:
        path = folder / "script.py"
        path.write_text(preamble + code, encoding="utf-8")
        pipe = folder / "hangs"
        os.mkfifo(pipe)
        self.hangs = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self.process = subprocess.Popen(
            [sys.executable, path, *net, pipe],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_heed_interrupts,
        )

    def wait_until_it_hangs(self) -> list[psutil.Process]:
        """The processes that it has started."""
        ended = os.pidfd_open(self.process.pid)
        ready, _, _ = select.select([self.hangs, ended], [], [], 60)
        os.close(ended)
        assert ready == [self.hangs], self.process.communicate()[1]
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        assert len(children) >= 2
        return children

    def left(self) -> list[psutil.Process]:
        """What still runs of its session."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                pass
        return found

    def assert_nothing_is_left(self, seconds: float = 1.0) -> None:
        deadline = time.monotonic() + seconds
        for process in self.left():
            with contextlib.suppress(ProcessLookupError):
                await_end(os.pidfd_open(process.pid), max(0.0, deadline - time.monotonic()))
        assert self.left() == []

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        os.close(self.hangs)


@pytest.fixture
def scripts(net: tuple[str, str], tmp_path: pathlib.Path) -> Iterator[list[Script]]:
    made: list[Script] = []
    yield made
    for script in made:
        script.close()


@pytest.mark.parametrize(
    "code",
    [
        "check()",  # no guard, and items and functions of __main__
        "thread = threading.Thread(target=check)\nthread.start()\nthread.join()",
        "if __name__ == '__main__':\n"
        "    child = multiprocessing.get_context('fork').Process(target=check, daemon=True)\n"
        "    child.start()\n    child.join()\n    assert child.exitcode == 0",
        "pool = Pool(*sys.argv[1:3], workers=2, preprocess=fill)\npool.map([Item(1)])",  # never closed
        "pool = Pool(*sys.argv[1:3], workers=2, preprocess=fill)\nfuture = pool.submit(Item(1))",  # not even waited for
        "for result in Pool(*sys.argv[1:3], workers=2, preprocess=fill).imap(iter([Item(1), Item(2)])):\n    break",
    ],
    ids=["without a guard", "in a thread", "in a daemon", "not closed", "not waited for", "abandoned"],
)
def test_it_works_and_leaves_nothing(
    net: tuple[str, str], tmp_path: pathlib.Path, scripts: list[Script], code: str
) -> None:
    script = Script(code, net, tmp_path)
    scripts.append(script)
    _, errors = script.process.communicate(timeout=60)
    assert (script.process.returncode, errors) == (0, "")
    script.assert_nothing_is_left()


def test_it_works_in_a_notebook(net: tuple[str, str], tmp_path: pathlib.Path, scripts: list[Script]) -> None:
    """Cells are code of a `__main__` that has no file, run one after another in one process, beside a thread."""
    cells = [PREAMBLE, "idle = threading.Thread(target=threading.Event().wait, daemon=True)\nidle.start()", "check()"]
    notebook = (
        "import sys\nmain = sys.modules['__main__'].__dict__\ndel main['__file__']\n"
        f"for number, cell in enumerate({[*cells, 'check()']!r}):\n"
        "    exec(compile(cell, f'<cell {number}>', 'exec'), main)\n"
    )
    script = Script(notebook, net, tmp_path, preamble="")
    scripts.append(script)
    _, errors = script.process.communicate(timeout=60)
    assert (script.process.returncode, errors) == (0, "")
    script.assert_nothing_is_left()


HANGS = "with Pool(*sys.argv[1:3], workers=2, preprocess=hang) as pool:\n    {}"


@pytest.mark.parametrize("use", ["pool.map([1, 2, 3])", "pool.submit(1).result()", "next(pool.imap(iter([1, 2])))"])
def test_an_interrupt_ends_it(net: tuple[str, str], tmp_path: pathlib.Path, scripts: list[Script], use: str) -> None:
    script = Script(HANGS.format(use), net, tmp_path)
    scripts.append(script)
    script.wait_until_it_hangs()
    os.killpg(script.process.pid, signal.SIGINT)  # as a terminal does: workers get it, too
    _, errors = script.process.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert errors.count("Traceback") == 1, "nothing from the workers"
    script.assert_nothing_is_left()


def test_an_exception_in_the_consumer_ends_it(
    net: tuple[str, str], tmp_path: pathlib.Path, scripts: list[Script]
) -> None:
    script = Script(
        "with Pool(*sys.argv[1:3], workers=2, preprocess=fill) as pool:\n"
        "    for result in pool.imap_unordered(Item(i) for i in range(10**9)): 1 / 0",
        net,
        tmp_path,
    )
    scripts.append(script)
    _, errors = script.process.communicate(timeout=60)
    assert errors.rstrip().endswith("ZeroDivisionError: division by zero")
    script.assert_nothing_is_left()


def test_a_kill_of_the_parent_ends_its_workers_within_a_second(
    net: tuple[str, str], tmp_path: pathlib.Path, scripts: list[Script]
) -> None:
    script = Script(HANGS.format("pool.map([1, 2, 3])"), net, tmp_path)
    scripts.append(script)
    script.wait_until_it_hangs()
    script.process.kill()
    script.process.wait()
    script.assert_nothing_is_left(1.0)
