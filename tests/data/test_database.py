from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from pycaffe.data import open_database
from pycaffe.data.database import working_directory
from pycaffe.errors import DataError


def test_an_unknown_backend_is_an_error() -> None:
    with pytest.raises(DataError, match=r"Unknown database backend: 7 \(known: LEVELDB = 0, LMDB = 1\)"):
        open_database("x", 7)


def test_messages_name_the_working_directory_for_relative_paths_only() -> None:
    assert repr(os.getcwd()) in working_directory("a/b")
    assert working_directory(os.path.abspath("a")) == ""


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="there are no permissions on this system")
@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_without_permission_to_read_the_error_says_so(backend: str, what: str) -> None:
    """Root may read everything, so it becomes nobody for a moment, in a process of its own."""
    script = textwrap.dedent(f"""
        import os, sys, tempfile
        import numpy as np
        from pycaffe.data import open_database, write_database
        from pycaffe.errors import DataError
        import lmdb, plyvel
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o755)
            source = folder + "/db"
            write_database(source, np.zeros((2, 1, 3, 4), np.uint8), backend={backend!r})
            if {what!r} == "folder":
                os.chmod(source, 0)
            else:
                os.chmod(source, 0o755)
                for name in os.listdir(source):
                    os.chmod(os.path.join(source, name), 0)
            user = os.geteuid()
            if user == 0:
                os.seteuid(65534)
            try:
                open_database(source, {int(backend == "lmdb")})
            except DataError as error:
                print(error)
            os.seteuid(user)
            os.chmod(source, 0o755)
    """)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "Permission denied" in result.stdout
    assert "/db" in result.stdout
    assert "pycaffe-leveldb" not in result.stdout
