"""A stand-in for TensorRT that computes for real: ONNX graphs in PyTorch, on a GPU or on the CPU.

:func:`tests.fakes.standin.installing.standing_in` puts it in TensorRT's place.
"""
