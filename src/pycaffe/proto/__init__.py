"""Caffe's files: the message classes, prototxt and weights, read, upgraded and written."""
