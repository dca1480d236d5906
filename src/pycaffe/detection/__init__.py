"""Detection: a net's outputs → objects with class, score and box in pixels of the image."""

from __future__ import annotations

from pycaffe.detection.class_names import names_for, read_class_names
from pycaffe.detection.detector import Decode, Detector, Found
from pycaffe.detection.single_image import Box, Detection, detect

__all__ = ["Box", "Decode", "Detection", "Detector", "Found", "detect", "names_for", "read_class_names"]
