"""CaffeNet from its files to the first output, against OpenCV 4's importer, with the files in the page cache.

Each run is a fresh process; the clock starts after `import caffe` (`import cv2`), whose own time is printed beside.
What pycaffe imports at the first forward (onnx, onnxruntime) counts into its time. Prints the ratio of each pair of
runs.
"""

from __future__ import annotations

import sys

from measure import in_turn, net_files, spread
from nets.caffenet import caffenet

ROUNDS = 7
PROGRAMS = {
    "pycaffe": """
import json, sys, time
begin = time.perf_counter()
import caffe
imported = time.perf_counter()
import numpy as np
x = np.random.default_rng(0).standard_normal((1, 3, 227, 227), dtype=np.float32)
start = time.perf_counter()
net = caffe.Net(sys.argv[1], caffe.TEST, weights=sys.argv[2])
net.blobs["data"].data[...] = x
prob = net.forward()["prob"]
end = time.perf_counter()
print(json.dumps({"import": imported - begin, "load": end - start, "sum": float(prob.sum())}))
""",
    "opencv": """
import json, sys, time
begin = time.perf_counter()
import cv2
imported = time.perf_counter()
import numpy as np
x = np.random.default_rng(0).standard_normal((1, 3, 227, 227), dtype=np.float32)
start = time.perf_counter()
net = cv2.dnn.readNetFromCaffe(sys.argv[1], sys.argv[2])
net.setInput(x)
prob = net.forward()
end = time.perf_counter()
print(json.dumps({"import": imported - begin, "load": end - start, "sum": float(prob.sum())}))
""",
}


def main() -> None:
    files = [str(path) for path in net_files("caffenet", caffenet())]
    scripts = {name: ["-c", program, *files] for name, program in PROGRAMS.items()}
    in_turn(scripts, 1)  # brings the files into the page cache
    runs = in_turn(scripts, ROUNDS)
    for name, results in runs.items():
        print(
            f"{name:8} import {spread([r['import'] for r in results])} s, load {spread([r['load'] for r in results])} s"
        )
    ratios = [mine["load"] / peer["load"] for mine, peer in zip(runs["pycaffe"], runs["opencv"])]
    print(f"load, pycaffe / OpenCV 4: {spread(ratios)}   (bar: 1)")


if __name__ == "__main__":
    sys.exit(main())
