"""The command `caffe`: one verb per file of this folder, imported when it is asked for.

A verb is a module without a leading underscore that holds a click command named `command`. Heavy imports (numpy, the
net) stand inside its function, so that `caffe --help` is quick.

Exit status: 0 all went well, 1 something failed, 2 the command cannot be carried out as it stands, 130 interrupted, 143
ended by SIGTERM.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import click

from pycaffe.errors import CaffeError, PoolError

__all__ = ["main"]


class _Verbs(click.Group):
    """The modules beside this one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"{__name__}.{cmd_name}").command
        return command


@click.command(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def _caffe() -> None:
    """Runs Caffe nets."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and exits."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status = _caffe.main(args=arguments, prog_name="caffe", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # Whoever read the records has had enough. The interpreter would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CaffeError, OSError) as error:
        click.echo(f"Error: {error}", err=True)
        return 1 if isinstance(error, (PoolError, OSError)) else 2
    return status if isinstance(status, int) else 0
