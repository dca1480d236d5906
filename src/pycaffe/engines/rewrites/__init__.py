"""Rewrites of a segment's ONNX model before it becomes a session: less to compute, the same numbers."""
