"""`caffe export`: a net → one .onnx file, with the largest error of each output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from pycaffe.cli._paths import expand
from pycaffe.errors import ExportMismatch

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pycaffe.images import ImagePreprocess
    from pycaffe.net import Net


@click.command("export")
@click.option("--model", required=True, metavar="PROTOTXT", help="The net, in its deploy form.")
@click.option("--weights", required=True, metavar="FILE", help="Its .caffemodel or .caffemodel.h5.")
@click.option("--check", is_flag=True, help="Compare the file with the net, on seeded random inputs.")
@click.option(
    "--check-images",
    multiple=True,
    metavar="PATHS",
    help="Compare on images, stretched to the net's input; repeatable.",
)
@click.option("--tolerance", type=float, metavar="F", help="Error allowed, of the largest value.  [default: 0.0001]")
@click.option("--opset", type=int, default=17, show_default=True, metavar="N", help="Of ONNX, 13 to 21.")
@click.option("--fixed-batch", type=click.IntRange(1), metavar="N", help="For batch N only.  [default: any batch]")
@click.option("--mean", metavar="V,V,V|FILE", help="Fold in: subtracted; blue, green, red, or .npy or .binaryproto.")
@click.option("--scale", type=float, metavar="F", help="Fold in: multiplies after the mean is subtracted.")
@click.option("--channel-swap", is_flag=True, help="Fold in: the net takes red, green, blue (and the mean so).")
@click.argument("out", metavar="OUT.onnx")
def command(
    model: str,
    weights: str,
    check: bool,
    check_images: tuple[str, ...],
    tolerance: float | None,
    opset: int,
    fixed_batch: int | None,
    mean: str | None,
    scale: float | None,
    channel_swap: bool,
    out: str,
) -> int:
    """Write a net as an ONNX file.

    With --mean, --scale or --channel-swap the file takes raw images of the net's height and width: float32
    (N, C, H, W), 0 to 255, blue green red; without, what the net takes. Prints what was written, and the largest error
    of each output.

    Exit status: 0 written, 1 the check failed and nothing was written, 2 the net cannot be exported.
    """
    from pycaffe.export import TOLERANCE, export_onnx, exportable_net

    net = exportable_net(model, weights)
    if fixed_batch is not None:
        _set_batch(net, fixed_batch)
    folded = mean is not None or scale is not None or channel_swap
    preprocessing = _preprocessing(net, mean, scale, channel_swap) if folded else None
    inputs = _image_inputs(net, expand(check_images)) if check_images else None
    try:
        report = export_onnx(
            net,
            out,
            opset=opset,
            dynamic_batch=fixed_batch is None,
            preprocessing=preprocessing,
            check=inputs if inputs is not None else check,
            tolerance=TOLERANCE if tolerance is None else tolerance,
        )
    except ExportMismatch as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    click.echo(str(report))
    return 0


def _set_batch(net: Net, batch: int) -> None:
    from pycaffe.export.source import batched_inputs

    for name in batched_inputs(net._graph)[1]:
        net.blobs[name].reshape(batch, *net.blobs[name].shape[1:])
    net.reshape()


def _preprocessing(net: Net, mean: str | None, scale: float | None, channel_swap: bool) -> ImagePreprocess:
    from pycaffe.cli._image_options import mean_of
    from pycaffe.images import ImagePreprocess

    order = "RGB" if channel_swap else "BGR"
    return ImagePreprocess(
        mean=mean_of(mean),
        scale=1.0 if scale is None else scale,
        channel_order=order,  # type: ignore[arg-type]
        grey=_image_shape(net)[1] == 1,
    )


def _image_shape(net: Net) -> tuple[int, ...]:
    """The shape of the one input, which must take images.

    Raises:
        click.UsageError: it does not.
    """
    shapes = {name: net.blobs[name].shape for name in net.inputs}
    shape = next(iter(shapes.values()), ())
    if len(shapes) != 1 or len(shape) != 4 or shape[1] not in (1, 3):
        raise click.UsageError(
            f"--check-images, --mean, --scale and --channel-swap need a net with one input of shape "
            f"(N, 3 or 1, height, width). This one has {shapes or 'none'}."
        )
    return shape


def _image_inputs(net: Net, paths: Iterable[str]) -> list[dict[str, npt.NDArray[np.float32]]]:
    """Each image as a batch of its own: pixels 0 to 255, blue green red, as many times as the net's batch."""
    import numpy as np

    from pycaffe.images import ImagePreprocess

    batch, channels, height, width = _image_shape(net)
    read = ImagePreprocess(mean=None, resize=(height, width), grey=channels == 1)
    return [{net.inputs[0]: np.repeat(read(path)[np.newaxis], batch, axis=0)} for path in paths]
