"""Models in use: one that is loaded once, a Triton repository of a bundle, and what checks a server."""
