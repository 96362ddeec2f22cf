"""A model to ONNX, in one precision."""
