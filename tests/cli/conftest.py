from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from pycaffe import glog
from tests.detection.tiny_detector import write_tiny_detector
from tests.workers.tiny_net import write_tiny_net


@pytest.fixture(autouse=True)
def no_log_goes_on() -> Iterator[None]:
    """A verb that ran in this process logs to the stderr of its test, and the next test has another one."""
    yield
    logger = logging.getLogger("pycaffe")
    if glog._handler is not None:
        logger.removeHandler(glog._handler)
        glog._handler = None
        logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def net(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Prototxt and weights of a net of one layer, with 7 classes."""
    return write_tiny_net(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="session")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Prototxt and weights of an SSD whose answers can be told from colours."""
    return write_tiny_detector(tmp_path_factory.mktemp("detector"))
