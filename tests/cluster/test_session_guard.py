"""The guard of a session that is not Ray's: a folder, and a process with a child."""

from __future__ import annotations

import os
import pathlib
import select
import subprocess
import sys

import pytest

# A stand-in for what `ray.init` leaves behind. Then: the process ends in one way or another.
PROCESS = """
import os, subprocess, sys, types
from pycaffe.cluster.session_guard import SessionGuard

raylet = subprocess.Popen(["sh", "-c", "sleep 100 & echo $!; wait"], stdout=subprocess.PIPE)
agent = int(raylet.stdout.readline())
process = types.SimpleNamespace(process=raylet)
node = types.SimpleNamespace(get_session_dir_path=lambda: sys.argv[1], all_processes={"raylet": [process]})
ray = types.SimpleNamespace(_private=types.SimpleNamespace(worker=types.SimpleNamespace(_global_node=node)))
guard = SessionGuard(ray)
print(raylet.pid, agent, guard._process.pid, flush=True)
sys.stdin.readline()
guard.close()
guard.close()
raylet.wait()
print(os.path.exists(sys.argv[1]), os.path.exists(f"/proc/{agent}"), flush=True)
"""


@pytest.mark.parametrize("ending", ["close", "SIGKILL"])
def test_folder_and_agents_end_with_their_process(ending: str, tmp_path: pathlib.Path) -> None:
    session = tmp_path / "session_1"
    (session / "logs").mkdir(parents=True)
    (tmp_path / "session_latest").symlink_to(session)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(session)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        if ending == "SIGKILL":
            process.kill()
        else:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "False False\n"
    for handle in handles:
        assert select.select([handle], [], [], 20)[0]
        os.close(handle)
    assert list(tmp_path.iterdir()) == []
