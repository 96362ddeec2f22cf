"""One file per command; each parses, makes one library call and prints."""

from .bench import bench
from .doctor import doctor
from .export import export
from .fuse import fuse
from .inspect import inspect
from .models import models
from .parity import parity
from .sensitivity import sensitivity

__all__ = ["bench", "doctor", "export", "fuse", "inspect", "models", "parity", "sensitivity"]
