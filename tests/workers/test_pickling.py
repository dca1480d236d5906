from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

from pycaffe.workers.pickling import dumps
from tests.workers import faults


def keep(buffer: pickle.PickleBuffer) -> bool:
    return True


def copy(message: object) -> Any:
    return pickle.loads(dumps(message, keep, lambda: None))


def test_ordinary_things_are_pickled_by_reference() -> None:
    assert copy((1, "text", faults.act)) == (1, "text", faults.act)
    assert len(dumps(faults.act, keep, lambda: None)) < 100
    np.testing.assert_array_equal(copy(np.arange(5)), np.arange(5))


def test_local_functions_are_written_out() -> None:
    factor = 3
    assert copy([lambda value: factor * value])[0](4) == 12


def test_what_belongs_to_main_can_be_read_where_it_cannot_be_imported() -> None:
    code = (
        "import sys\n"
        "from pycaffe.workers.pickling import dumps\n"
        "class Item:\n"
        "    def value(self): return 5\n"
        "sys.stdout.buffer.write(dumps([Item()], lambda buffer: True, lambda: None))\n"
    )
    packed = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE).stdout
    assert pickle.loads(packed)[0].value() == 5


def test_buffers_are_asked_about_again_from_the_beginning() -> None:
    buffers: list[pickle.PickleBuffer] = []

    def out_of_band(buffer: pickle.PickleBuffer) -> bool:
        buffers.append(buffer)
        return False

    data = dumps([np.arange(3), lambda: 1, np.arange(4)], out_of_band, buffers.clear)
    assert len(buffers) == 2
    first, _, second = pickle.loads(data, buffers=buffers)
    np.testing.assert_array_equal(first, [0, 1, 2])
    np.testing.assert_array_equal(second, [0, 1, 2, 3])


def test_what_does_not_pickle_raises() -> None:
    with pytest.raises(TypeError, match="cannot pickle"):
        dumps(threading.Lock(), keep, lambda: None)
