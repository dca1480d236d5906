"""Forward of CaffeNet, pycaffe's compiled engine against OpenCV 4's dnn, interleaved in one process.

Both have all cores. pycaffe's time is the whole of `net.blobs["data"].data[...] = x; net.forward()["prob"]`. Several
processes; prints the median of their ratios with its spread.
"""

from __future__ import annotations

import sys

from measure import in_turn, net_files, spread
from nets.caffenet import caffenet

PROCESSES = 5
BATCHES = (1, 8)
PROGRAM = """
import json, sys, time
import numpy as np
import cv2
import caffe
prototxt, weights, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
x = np.random.default_rng(0).standard_normal((batch, 3, 227, 227), dtype=np.float32)
net = caffe.Net(prototxt, caffe.TEST, weights=weights)
net.blobs["data"].reshape(*x.shape)
peer = cv2.dnn.readNetFromCaffe(prototxt, weights)
def mine():
    net.blobs["data"].data[...] = x
    return net.forward()["prob"]
def theirs():
    peer.setInput(x)
    return peer.forward()
difference = float(abs(mine() - theirs()).max())
times = {mine: [], theirs: []}
for _ in range(max(6, 48 // batch)):
    for run in times:
        start = time.perf_counter()
        run()
        times[run].append(time.perf_counter() - start)
print(json.dumps({"pycaffe": float(np.median(times[mine])), "opencv": float(np.median(times[theirs])),
                  "difference": difference}))
"""


def main() -> None:
    files = [str(path) for path in net_files("caffenet", caffenet())]
    for batch in BATCHES:
        runs = in_turn({"both": ["-c", PROGRAM, *files, str(batch)]}, PROCESSES)["both"]
        ratios = [run["opencv"] / run["pycaffe"] for run in runs]
        print(
            f"CaffeNet, batch {batch}: pycaffe {spread([run['pycaffe'] * 1e3 for run in runs])} ms, "
            f"OpenCV 4 {spread([run['opencv'] * 1e3 for run in runs])} ms; "
            f"pycaffe is {spread(ratios)} times as fast "
            f"(largest difference {max(run['difference'] for run in runs):.1e})"
        )


if __name__ == "__main__":
    sys.exit(main())
