from __future__ import annotations

import mmap
import os
import pathlib

import pytest

from pycaffe.workers.memory import memory_of, release_before_fork
from tests.net.nets import run_python

MEGABYTE = 1 << 20


def test_own_memory_grows_with_what_a_process_writes() -> None:
    before = memory_of(os.getpid())
    with mmap.mmap(-1, 32 * MEGABYTE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as written:
        for page in range(0, len(written), mmap.PAGESIZE):
            written[page] = 1
        after = memory_of(os.getpid())
    assert before is not None and after is not None
    assert 30 * MEGABYTE < after.own - before.own < 40 * MEGABYTE
    assert after.share >= after.own


def test_none_for_a_process_that_is_not_there() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    assert memory_of(pid) is None


RELEASE = """
import mmap
from pycaffe.workers.memory import memory_of, release_before_fork
import os
files = [open(name, "rb") for name in ("read", "written")]
read, written = (mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) for file in files)
want, written_before = bytes(read), bytes(written)
written[5] ^= 1
before = memory_of(os.getpid())
release_before_fork()
after = memory_of(os.getpid())
assert before.share - after.share > 14 << 20, (before, after)
assert read[:] == want
assert written[5] == written_before[5] ^ 1
assert written[:5] == written_before[:5] and written[6:] == written_before[6:]
"""


def test_pages_of_files_leave_and_come_back_and_what_was_written_stays(tmp_path: pathlib.Path) -> None:
    for name in ("read", "written"):
        (tmp_path / name).write_bytes(os.urandom(16 * MEGABYTE))
    assert run_python(RELEASE, cwd=tmp_path).stdout == ""


def test_release_where_there_is_no_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    class Libc:
        def madvise(self, *arguments: object) -> int:
            return 0

    monkeypatch.setattr("ctypes.CDLL", lambda name: Libc())
    monkeypatch.setattr("gc.freeze", lambda: None)
    release_before_fork()
