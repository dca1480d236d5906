"""RegionDetectionOutput: YoloDetectionOutput under another name."""

from __future__ import annotations

from pycaffe.layers._registry import register_layer
from pycaffe.layers.yolo_detection_output import YoloDetectionOutputLayer

__all__ = ["RegionDetectionOutputLayer"]


@register_layer("RegionDetectionOutput")
class RegionDetectionOutputLayer(YoloDetectionOutputLayer):
    """As YoloDetectionOutput, with its parameters (yolo_detection_output_param)."""
