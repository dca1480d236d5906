"""`caffe upgrade_net_proto_text`: a net's prototxt in today's format."""

from __future__ import annotations

import click

from pycaffe.cli._gflags import GflagsCommand
from pycaffe.cli._upgrade import upgrade_file


@click.command("upgrade_net_proto_text", cls=GflagsCommand)
@click.argument("source", metavar="V0_NET_PROTO_FILE_IN")
@click.argument("target", metavar="NET_PROTO_FILE_OUT")
def command(source: str, target: str) -> None:
    """Write a net's prototxt in today's format."""
    from pycaffe.proto.schema import NetParameter
    from pycaffe.proto.upgrade import upgrade_net_as_needed

    upgrade_file("upgrade_net_proto_text", source, target, NetParameter(), upgrade_net_as_needed, binary=False)
