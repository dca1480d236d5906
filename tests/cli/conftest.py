from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pycaffe import glog


@pytest.fixture(autouse=True)
def no_log_goes_on() -> Iterator[None]:
    """A verb that ran in this process logs to the stderr of its test, and the next test has another one."""
    yield
    logger = logging.getLogger("pycaffe")
    if glog._handler is not None:
        logger.removeHandler(glog._handler)
        glog._handler = None
        logger.setLevel(logging.NOTSET)
