"""How images become inputs: the options that `classify`, `detect` and `extract` share, and the net that fits them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pycaffe.cli._identity import hash_of

if TYPE_CHECKING:
    from pycaffe.images import ImagePreprocess
    from pycaffe.net import Net

_OPTIONS = (
    click.option(
        "--mean", metavar="V,V,V|FILE", help="Subtracted: values blue, green, red; or a .npy or .binaryproto file."
    ),
    click.option(
        "--scale", type=float, default=1.0, show_default=True, help="Multiplies after the mean is subtracted."
    ),
    click.option("--resize", type=click.IntRange(1), metavar="N", help="Stretch each image to N x N."),
    click.option("--crop", type=click.IntRange(1), metavar="N", help="Take the N x N pixels in the centre."),
)


def image_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; their values come as `ImageOptions` takes them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True)
class ImageOptions:
    """The options' values."""

    mean: str | None
    scale: float
    resize: int | None
    crop: int | None

    def preprocess(self, net: Net, verb: str) -> ImagePreprocess:
        """The preprocessing that the options ask for; `net` gets the input shape that follows, for one image.

        Raises:
            click.UsageError: the net or an option does not fit `verb`.
            NetError: the net cannot take images of that size.
        """
        from pycaffe.images import ImagePreprocess

        shape = net.blobs[net.inputs[0]].shape if len(net.inputs) == 1 else ()
        if len(shape) != 4 or shape[1] not in (1, 3) or not net.outputs:
            inputs = {name: net.blobs[name].shape for name in net.inputs}
            raise click.UsageError(
                f"{verb} needs a net with one input of shape (N, 3 or 1, height, width). This one has "
                f"{inputs or 'none'}; give the deploy form of the net."
            )
        _, channels, height, width = shape
        resize, crop = self.resize, self.crop
        stretch: int | tuple[int, int] | None = resize
        if resize is None and crop is None:
            stretch = (height, width)
        elif crop is None and (height, width) != (resize, resize):
            if height != width:
                raise click.UsageError(f"The net's input is {height} x {width}: give --crop, or leave out --resize.")
            crop = height
        if resize is not None and crop is not None and resize < crop:
            raise click.UsageError(f"Cannot crop {crop} x {crop} pixels from images of {resize} x {resize}.")
        extent = (crop, crop) if crop is not None else (height, width)
        net.blobs[net.inputs[0]].reshape(1, channels, *extent)
        net.reshape()
        return ImagePreprocess(mean_of(self.mean), self.scale, stretch, crop, grey=channels == 1)


def settings_of(preprocess: ImagePreprocess) -> dict[str, Any]:
    """What of a preprocessing changes results, for a job's identity."""
    mean: Any = preprocess.mean
    if mean is not None:
        mean = mean.ravel().tolist() if mean.shape[1:] == (1, 1) else hash_of(mean)
    return {
        "mean": mean,
        "scale": preprocess.scale,
        "resize": preprocess.resize,
        "crop": preprocess.crop,
    }


def mean_of(text: str | None) -> str | tuple[float, ...] | None:
    """Values, else the name of a file."""
    if text is None:
        return None
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError:
        return text
