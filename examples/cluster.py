"""The same pool on the nodes of a Ray cluster; docs/cluster.md says how to start one.

python examples/cluster.py deploy.prototxt weights.caffemodel image.jpg …
RAY_ADDRESS=head:6379 python examples/cluster.py …     (without it, Ray is started on this machine)
"""

from __future__ import annotations

import pathlib
import sys

import pycaffe


def main(model: str, weights: str, *images: str) -> None:
    with pycaffe.Pool(model, weights, backend="ray") as pool:
        # Bytes, not paths: the nodes need not have the images.
        for index, result in enumerate(pool.imap(pathlib.Path(path).read_bytes() for path in images)):
            if result.error is not None:
                print(images[index], result.error)
                continue
            (scores,) = result.outputs.values()
            best = scores.ravel().argsort()[::-1][:3]
            print(images[index], *(f"{place}:{scores.ravel()[place]:.4f}" for place in best))


if __name__ == "__main__":
    main(*sys.argv[1:])
