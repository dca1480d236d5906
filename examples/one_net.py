"""One net in this process: an image in, the best classes out.

python examples/one_net.py deploy.prototxt weights.caffemodel image.jpg …
"""

from __future__ import annotations

import sys

import pycaffe


def main(model: str, weights: str, *images: str) -> None:
    net = pycaffe.Net(model, pycaffe.TEST, weights=weights)
    height, width = net.blobs[net.inputs[0]].shape[2:]
    preprocess = pycaffe.ImagePreprocess(mean=None, resize=(height, width))  # or the mean that the net was trained with
    for path in images:
        net.blobs[net.inputs[0]].data[0] = preprocess(path)
        scores = net.forward()[net.outputs[0]][0].ravel()
        print(path, *(f"{index}:{scores[index]:.4f}" for index in scores.argsort()[::-1][:3]))


if __name__ == "__main__":
    main(*sys.argv[1:])
