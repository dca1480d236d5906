"""`caffe device_query`: which GPUs there are."""

from __future__ import annotations

import click


@click.command("device_query")
def command() -> None:
    """Print how many GPUs this process may use."""
    from pycaffe.devices import gpu_count

    count = gpu_count()
    click.echo(f"GPUs: {count}")
    for index in range(count):
        click.echo(f"cuda:{index}")
