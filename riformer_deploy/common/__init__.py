"""No domain: errors, enums, serialization, files, optional dependencies, progress."""
