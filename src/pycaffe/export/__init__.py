"""Nets leave: as an ONNX file with proof that it is right, or as a torch module."""

from __future__ import annotations

from typing import Any

from pycaffe.export.check import TOLERANCE, ExportReport, OutputError
from pycaffe.export.onnx_file import export_onnx
from pycaffe.export.source import exportable_net
from pycaffe.net import Net

__all__ = ["ExportReport", "OutputError", "TOLERANCE", "export_onnx", "exportable_net", "to_torch"]


def to_torch(net: Net, *, shared: bool = False) -> Any:
    """A `torch.nn.Module` that computes what the net computes, with the net's parameters and no blobs.

    Children are the net's layers that have parameters, by name (a dot in it becomes an underscore): `conv1.weight`,
    `conv1.bias`. `eval()` computes the TEST phase and `train()` the TRAIN phase of every layer that does not state a
    phase itself: Dropout drops, BatchNorm takes the batch's statistics and moves its averages, which are buffers. The
    module begins in the phase of the net. Gradients are Caffe's, also where Caffe's differ from the derivative. A
    parameter with `lr_mult: 0` begins with `requires_grad` False.

    `module(x)` or `module(data=x)` takes one tensor for each input of the net, of any shape that the layers accept, and
    returns the output, or a dict by blob name where there are several. Losses come without their loss weight. An
    LSTM or RNN without `expose_hidden` carries its state from one forward to the next, as in Caffe.

    The module pickles, deep-copies, and loads its own `state_dict`. It runs one forward at a time.

    Args:
        net: the net; it may be of either phase.
        shared: whether parameters lie in the net's own memory, so that training the module trains the net, which can
            then `save` a caffemodel; else they are copies. Moving the module to another device or type ends it.

    Raises:
        ExportError: a layer runs in Python on the host: a reader, a writer or a Python layer.
        MissingExtra: torch is not installed.
    """
    from pycaffe.export.torch_module import CaffeModule

    return CaffeModule(net, shared=shared)
