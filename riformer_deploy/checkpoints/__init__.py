"""What is read: from a file to weights of a known architecture."""
