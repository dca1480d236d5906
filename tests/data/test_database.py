from __future__ import annotations

import os

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
