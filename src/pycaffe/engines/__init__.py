"""What runs a graph: torch (everything, layer by layer), onnxruntime (compiled TEST-phase segments)."""
