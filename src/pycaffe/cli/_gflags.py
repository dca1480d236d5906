"""Arguments as the original's tools take them: in the forms of gflags, anywhere between the positional ones.

    --name=value   -name=value   --name value   -name value
    --flag   --noflag   --flag=true   --flag=false   (also t f, yes no, y n, 1 0)

A verb says `cls=GflagsCommand` and declares each option once, with two dashes; those of type `bool` take the second
line's forms. Click's own flags (`is_flag=True`, `--help`) and what is unknown are left to click, with two dashes: after
one it would look for options of a single letter.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

__all__ = ["GflagsCommand", "log_to_stderr"]


class GflagsCommand(click.Command):
    """A command whose arguments may have the forms above. After `--` everything is positional."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, list(self._in_long_form(args)))

    def _in_long_form(self, args: list[str]) -> Iterator[str]:
        """The arguments as click takes them: a known option as `--name=value`."""
        options = {
            name.lstrip("-"): option.type is click.BOOL
            for option in self.params
            if isinstance(option, click.Option) and not option.is_flag
            for name in option.opts
        }
        rest = iter(args)
        for arg in rest:
            name, equals, value = arg.lstrip("-").partition("=")
            if arg == "--":
                yield arg
                yield from rest
            elif not arg.startswith("-"):
                yield arg
            elif equals and name in options:
                yield f"--{name}={value}"
            elif options.get(name):
                yield f"--{name}=true"
            elif name in options:
                following = next(rest, None)  # is the value, even if it begins with a dash
                yield f"--{name}" if following is None else f"--{name}={following}"
            elif name.startswith("no") and options.get(name[2:]) and not equals:
                yield f"--{name[2:]}=false"
            else:
                yield arg if arg.startswith("--") or len(name) < 2 else f"-{arg}"


def log_to_stderr() -> None:
    """Puts the log lines of a tool on stderr in glog's form, from the level that `GLOG_minloglevel` says."""
    from pycaffe import glog

    wanted = os.environ.get("GLOG_minloglevel", "")  # noqa: SIM112 (glog's own name)
    glog.init_log(int(wanted) if wanted.isdigit() else 0)
