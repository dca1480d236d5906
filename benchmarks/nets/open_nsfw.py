"""Yahoo's open_nsfw, a ResNet-50 of half width: the published deploy file with its trained weights, fetched."""

from __future__ import annotations

import functools
import pathlib
import subprocess
import sys
from typing import Any

from google.protobuf import text_format

from caffe.proto import caffe_pb2

SCRIPTS = pathlib.Path(__file__).parent.parent.parent / "scripts"


def open_nsfw(batch: int = 1) -> Any:
    """The NetParameter for (batch, 3, 224, 224)."""
    net = text_format.Parse((folder() / "deploy.prototxt").read_text(), caffe_pb2.NetParameter())
    net.layer[0].input_param.shape[0].dim[0] = batch
    return net


def weights() -> pathlib.Path:
    """The trained weights."""
    return folder() / "resnet_50_1by2_nsfw.caffemodel"


@functools.cache
def folder() -> pathlib.Path:
    """Where scripts/fetch_models keeps the files."""
    command = [sys.executable, str(SCRIPTS / "fetch_models"), "open_nsfw"]
    return pathlib.Path(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
