"""Parity, accuracy, latency."""
