"""`caffe draw`: a net as a picture of its layers and blobs, with the arguments of the original's draw_net.py."""

from __future__ import annotations

import os

import click

from pycaffe.cli._gflags import GflagsCommand

FORMATS = ("png", "svg", "pdf", "dot", "gif", "jpg", "jpeg", "ps", "eps", "raw")  # every build of dot writes these


@click.command("draw", cls=GflagsCommand)
@click.option("--model", metavar="PROTOTXT", help="The net; may also stand before OUT, as in draw_net.py.")
@click.option("--rankdir", type=click.Choice(["TB", "BT", "LR", "RL"]), default="LR", show_default=True)
@click.option(
    "--phase", type=click.Choice(["TRAIN", "TEST", "ALL"]), default="ALL", show_default=True, help="Layers to draw."
)
@click.option("--display_lrm", "--display-lrm", is_flag=True, help="Write learning rate multipliers into layers.")
@click.argument("names", nargs=-1, required=True, metavar="[PROTOTXT] OUT")
def command(model: str | None, rankdir: str, phase: str, display_lrm: bool, names: tuple[str, ...]) -> None:
    """Draw a net to a file, in the format that its ending says: .png, .svg, .pdf, .dot and others.

    Old prototxts are drawn as the net that they are upgraded to.
    """
    from caffe.draw import draw_net
    from pycaffe.net import TEST, TRAIN
    from pycaffe.proto.prototxt import read_net
    from pycaffe.proto.replace_file import replacing

    *first, out = names
    if len(first) + (model is not None) != 1:
        raise click.UsageError("Give the net once, and then the file to draw to: caffe draw --model PROTOTXT OUT.")
    ending = os.path.splitext(out)[1][1:]
    if ending not in FORMATS:
        raise click.UsageError(f"Cannot draw to {out!r}. Give a name that ends in .{', .'.join(FORMATS)}.")
    net = read_net(model if model is not None else first[0])
    numbers = {"TRAIN": TRAIN, "TEST": TEST, "ALL": None}
    picture = draw_net(net, rankdir, ending, numbers[phase], display_lrm)
    with replacing(out) as temporary, open(temporary, "xb") as file:
        file.write(picture)
    click.echo(f"Wrote {out}.")
