"""One file per command; each parses, makes one library call and prints."""

from .accuracy import accuracy
from .bench import bench
from .build import build
from .compare import compare
from .doctor import doctor
from .download import download
from .export import export
from .features import features
from .fuse import fuse
from .inspect import inspect
from .models import models
from .parity import parity
from .predict import predict
from .reparameterize import reparameterize
from .report import report
from .reproduce import reproduce
from .score import score
from .sensitivity import sensitivity
from .serve import check, triton
from .test import evaluate

__all__ = [
    "accuracy",
    "bench",
    "build",
    "check",
    "compare",
    "doctor",
    "download",
    "evaluate",
    "export",
    "features",
    "fuse",
    "inspect",
    "models",
    "parity",
    "predict",
    "reparameterize",
    "report",
    "reproduce",
    "score",
    "sensitivity",
    "triton",
]
