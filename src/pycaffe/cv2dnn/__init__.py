"""The door for users of OpenCV's Caffe importer, which OpenCV 5 no longer has.

`read_net_from_caffe(prototxt, caffemodel)` gives a net with the methods of `cv2.dnn.Net`; `install()` puts it back as
`cv2.dnn.readNetFromCaffe`, and `python -m pycaffe.cv2dnn script.py` runs a script after that, unchanged.

    reading         files or buffers -> Net; each layer gets an output of its own, as in OpenCV
    net             Net: inputs, forward, backends, parameters
    inspection      Net's other half: names, ids, shapes, FLOPs, memory, dump
    flops           what OpenCV counts for one layer
    quantization    Net.quantize, and what an int8 net takes and gives
    models          Model and its four kinds, on images
    installation    install and uninstall
    opencv_error    our errors as cv2.error
"""

from __future__ import annotations

from pycaffe.cv2dnn.installation import install, uninstall
from pycaffe.cv2dnn.models import ClassificationModel, DetectionModel, KeypointsModel, Model, SegmentationModel
from pycaffe.cv2dnn.net import Net
from pycaffe.cv2dnn.reading import read_net_from_caffe

__all__ = [
    "ClassificationModel",
    "DetectionModel",
    "KeypointsModel",
    "Model",
    "Net",
    "SegmentationModel",
    "install",
    "read_net_from_caffe",
    "uninstall",
]
