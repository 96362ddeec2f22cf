"""RIFormer checkpoints to verified deployment artifacts.

The names below are the public API; each is imported when it is first used, so that importing the
package itself loads neither PyTorch nor ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from riformer_deploy.version import VERSION

if TYPE_CHECKING:
    from riformer_deploy.architecture import Architecture, Form
    from riformer_deploy.artifacts import Precision, WeightSet
    from riformer_deploy.bench import BenchOptions
    from riformer_deploy.budgets import Budget, changed_budgets
    from riformer_deploy.bundles import Bundle
    from riformer_deploy.checkpoints import Checkpoint, load_checkpoint
    from riformer_deploy.errors import RIFormerDeployError
    from riformer_deploy.evidence import bench_bundle, verify_bundle
    from riformer_deploy.fusion import fold, fuse
    from riformer_deploy.inspection import inspect_file
    from riformer_deploy.lineup import Group
    from riformer_deploy.model import RIFormer
    from riformer_deploy.pipeline import ExportOptions, export_checkpoint, fuse_checkpoint
    from riformer_deploy.results import Status
    from riformer_deploy.variants import VARIANTS, get_variant
    from riformer_deploy.zoo import get_model, published_models

__version__ = VERSION

_HOMES = {
    "get_variant": "variants",
    "changed_budgets": "budgets",
    "WeightSet": "artifacts",
    "Status": "results",
    "Precision": "artifacts",
    "Group": "lineup",
    "Budget": "budgets",
    "Architecture": "architecture",
    "BenchOptions": "bench",
    "Bundle": "bundles",
    "Checkpoint": "checkpoints",
    "ExportOptions": "pipeline",
    "Form": "architecture",
    "RIFormer": "model",
    "RIFormerDeployError": "errors",
    "VARIANTS": "variants",
    "bench_bundle": "evidence",
    "export_checkpoint": "pipeline",
    "fold": "fusion",
    "fuse": "fusion",
    "fuse_checkpoint": "pipeline",
    "get_model": "zoo",
    "inspect_file": "inspection",
    "load_checkpoint": "checkpoints",
    "published_models": "zoo",
    "verify_bundle": "evidence",
}

__all__ = [
    "VARIANTS",
    "Architecture",
    "BenchOptions",
    "Budget",
    "Bundle",
    "Checkpoint",
    "ExportOptions",
    "Form",
    "Group",
    "Precision",
    "RIFormer",
    "RIFormerDeployError",
    "Status",
    "WeightSet",
    "bench_bundle",
    "changed_budgets",
    "export_checkpoint",
    "fold",
    "fuse",
    "fuse_checkpoint",
    "get_model",
    "get_variant",
    "inspect_file",
    "load_checkpoint",
    "published_models",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
