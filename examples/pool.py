"""A net in as many processes as there are cores, over any number of images; a bad one costs itself.

python examples/pool.py deploy.prototxt weights.caffemodel image.jpg …
"""

from __future__ import annotations

import sys

import pycaffe


def main(model: str, weights: str, *images: str) -> None:
    with pycaffe.Pool(model, weights) as pool:  # preprocess=pycaffe.ImagePreprocess(mean=(104, 117, 123)), perhaps
        for result in pool.imap_unordered(images):
            if result.error is not None:
                print(result.item, result.error)
                continue
            (scores,) = result.outputs.values()
            best = scores.ravel().argsort()[::-1][:3]
            print(result.item, *(f"{index}:{scores.ravel()[index]:.4f}" for index in best))


if __name__ == "__main__":
    main(*sys.argv[1:])
