"""`caffe test`: the outputs of a net over batches of its own data, and their averages, as the original logs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pycaffe.cli._caffe_cpp import first_device, info, stages_of
from pycaffe.cli._gflags import GflagsCommand, log_to_stderr

if TYPE_CHECKING:
    from pycaffe.net import Net


@click.command("test", cls=GflagsCommand)
@click.option("--model", required=True, metavar="PROTOTXT", help="The net, with a data layer for the TEST phase.")
@click.option("--weights", required=True, metavar="CAFFEMODEL", help="Its weights.")
@click.option("--iterations", type=click.IntRange(1), default=50, show_default=True, help="Batches to run.")
@click.option("--gpu", default="", metavar="N", help="Run on this GPU; of several, on the first.")
@click.option("--level", type=int, default=0, help="The level of the net's state.")
@click.option("--stage", default="", help="The stages of the net's state, separated by commas.")
def command(model: str, weights: str, iterations: int, gpu: str, level: int, stage: str) -> None:
    """Score a net on the data of its TEST phase.

    Logs each batch's outputs to stderr, and then the averages.
    """
    from pycaffe.net import TEST, Net

    log_to_stderr()
    device = first_device(gpu)
    if device == "cpu":
        info(275, "Use CPU.")
    else:
        info(266, f"Use GPU with device ID {device.partition(':')[2]}")
    net = Net(model, TEST, level, stages_of(stage), weights, device=device)
    info(281, f"Running for {iterations} iterations.")
    _score(net, iterations)


def _score(net: Net, iterations: int) -> None:
    """Runs the batches. An output of several values is logged, and averaged, value by value."""
    import numpy as np

    last = len(net._layer_names) - 1
    loss = 0.0
    sums: dict[str, np.ndarray] = {}
    for batch in range(iterations):
        loss += net._forward(0, last)
        for name in net.outputs:
            scores = net.blobs[name].data.ravel()
            sums[name] = scores + sums.get(name, np.zeros(1, np.float32))
            for score in scores:
                info(304, f"Batch {batch}, {name} = {score:g}")
    info(309, f"Loss: {loss / iterations:g}")
    for name, summed in sums.items():
        weight = net.blob_loss_weights[name]
        for mean in summed / iterations:
            note = f" (* {weight:g} = {weight * mean:g} loss)" if weight else ""
            info(321, f"{name} = {mean:g}{note}")
