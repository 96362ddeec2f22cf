"""What is written: the artifact folder and its records."""
