"""TensorRT 10.x, 11.x and TensorRT-RTX: the only code that touches their Python bindings.

What one flavor has and another lacks is asked of the bindings (``hasattr``), never of a version.
"""
