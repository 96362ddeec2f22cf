"""Calibration, sensitivity, accuracy control."""
