"""`caffe upgrade_solver_proto_text`: a solver's prototxt in today's format."""

from __future__ import annotations

import click

from pycaffe.cli._gflags import GflagsCommand
from pycaffe.cli._upgrade import upgrade_file


@click.command("upgrade_solver_proto_text", cls=GflagsCommand)
@click.argument("source", metavar="OLD_SOLVER_PROTO_FILE_IN")
@click.argument("target", metavar="SOLVER_PROTO_FILE_OUT")
def command(source: str, target: str) -> None:
    """Write a solver's prototxt in today's format."""
    from pycaffe.proto.schema import SolverParameter
    from pycaffe.proto.upgrade import upgrade_solver_as_needed

    upgrade_file("upgrade_solver_proto_text", source, target, SolverParameter(), upgrade_solver_as_needed, binary=False)
