"""Device memory, streams and events behind one small interface."""
