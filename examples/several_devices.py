"""A process for each GPU of this machine, all of them busy; where there is none, one for each core.

python examples/several_devices.py deploy.prototxt weights.caffemodel image.jpg …
"""

from __future__ import annotations

import sys

import pycaffe


def main(model: str, weights: str, *images: str) -> None:
    try:
        pool = pycaffe.Pool(model, weights, devices="all")
    except pycaffe.DeviceError as error:
        print(error, file=sys.stderr)
        pool = pycaffe.Pool(model, weights)
    with pool:
        for result in pool.imap_unordered(images):  # to whoever asks next: a slow device gets fewer
            device = pool.stats().workers[result.worker].device
            print(result.item, device, result.error or [array.argmax() for array in result.outputs.values()])


if __name__ == "__main__":
    main(*sys.argv[1:])
