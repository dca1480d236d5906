"""pycaffe: Caffe for today's Python."""
