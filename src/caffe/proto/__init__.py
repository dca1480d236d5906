"""Holds `caffe_pb2`, the module of Caffe's messages."""
