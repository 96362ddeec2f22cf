"""RIFormer checkpoints to verified deployment artifacts.

The names below are the public API; each is imported when it is first used, so that importing the
package itself loads neither PyTorch nor ONNX Runtime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from riformer_deploy.common.version import VERSION

if TYPE_CHECKING:
    from riformer_deploy.api.accuracy import AccuracyOptions, accuracy_bundle
    from riformer_deploy.api.bench import bench_bundle
    from riformer_deploy.api.build import build_engines
    from riformer_deploy.api.checkpoint_accuracy import CheckpointAccuracyOptions, evaluate_checkpoint
    from riformer_deploy.api.export import ExportOptions, export_checkpoint
    from riformer_deploy.api.features import FeatureOptions, extract_features
    from riformer_deploy.api.fuse import fuse_checkpoint
    from riformer_deploy.api.inspect import inspect_file
    from riformer_deploy.api.models import list_models, published_models
    from riformer_deploy.api.parity import verify_bundle
    from riformer_deploy.api.predict import predict_images
    from riformer_deploy.api.reproduce import ReproduceOptions, reproduce_table
    from riformer_deploy.api.torch_models import InferenceResult, get_model, inference_model
    from riformer_deploy.backends.candidates import Group
    from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
    from riformer_deploy.bundle.store import Bundle
    from riformer_deploy.checkpoints.download import DownloadOptions, download_checkpoint
    from riformer_deploy.checkpoints.load import Checkpoint, load_checkpoint
    from riformer_deploy.common.enums import Precision, WeightSet
    from riformer_deploy.common.errors import RIFormerDeployError
    from riformer_deploy.data.image_files import PictureFiles, find_pictures
    from riformer_deploy.evaluation.latency import BenchOptions
    from riformer_deploy.evaluation.results import Status
    from riformer_deploy.evaluation.tolerances import Tolerance, changed_tolerances
    from riformer_deploy.model.architecture import Architecture, Form
    from riformer_deploy.model.network import RIFormer
    from riformer_deploy.model.reparameterize import fold, fuse
    from riformer_deploy.model.variants import VARIANTS, get_variant
    from riformer_deploy.trt.build_options import BuildOptions

__version__ = VERSION

_HOMES = {
    "AccuracyOptions": "api.accuracy",
    "Architecture": "model.architecture",
    "TensorRTFlavor": "bundle.engine_metadata",
    "BatchProfile": "bundle.engine_metadata",
    "BenchOptions": "evaluation.latency",
    "Tolerance": "evaluation.tolerances",
    "BuildOptions": "trt.build_options",
    "BuildSettings": "bundle.engine_metadata",
    "Bundle": "bundle.store",
    "Checkpoint": "checkpoints.load",
    "CheckpointAccuracyOptions": "api.checkpoint_accuracy",
    "DownloadOptions": "checkpoints.download",
    "ExportOptions": "api.export",
    "FeatureOptions": "api.features",
    "Form": "model.architecture",
    "Group": "backends.candidates",
    "InferenceResult": "api.torch_models",
    "PictureFiles": "data.image_files",
    "Precision": "common.enums",
    "RIFormer": "model.network",
    "RIFormerDeployError": "common.errors",
    "ReproduceOptions": "api.reproduce",
    "Status": "evaluation.results",
    "VARIANTS": "model.variants",
    "WeightSet": "common.enums",
    "accuracy_bundle": "api.accuracy",
    "bench_bundle": "api.bench",
    "build_engines": "api.build",
    "changed_tolerances": "evaluation.tolerances",
    "download_checkpoint": "checkpoints.download",
    "evaluate_checkpoint": "api.checkpoint_accuracy",
    "export_checkpoint": "api.export",
    "extract_features": "api.features",
    "find_pictures": "data.image_files",
    "fold": "model.reparameterize",
    "fuse": "model.reparameterize",
    "fuse_checkpoint": "api.fuse",
    "get_model": "api.torch_models",
    "get_variant": "model.variants",
    "inference_model": "api.torch_models",
    "inspect_file": "api.inspect",
    "list_models": "api.models",
    "load_checkpoint": "checkpoints.load",
    "predict_images": "api.predict",
    "published_models": "api.models",
    "reproduce_table": "api.reproduce",
    "verify_bundle": "api.parity",
}

__all__ = [
    "VARIANTS",
    "AccuracyOptions",
    "Architecture",
    "BatchProfile",
    "BenchOptions",
    "BuildOptions",
    "BuildSettings",
    "Bundle",
    "Checkpoint",
    "CheckpointAccuracyOptions",
    "DownloadOptions",
    "ExportOptions",
    "FeatureOptions",
    "Form",
    "Group",
    "InferenceResult",
    "PictureFiles",
    "Precision",
    "RIFormer",
    "RIFormerDeployError",
    "ReproduceOptions",
    "Status",
    "TensorRTFlavor",
    "Tolerance",
    "WeightSet",
    "accuracy_bundle",
    "bench_bundle",
    "build_engines",
    "changed_tolerances",
    "download_checkpoint",
    "evaluate_checkpoint",
    "export_checkpoint",
    "extract_features",
    "find_pictures",
    "fold",
    "fuse",
    "fuse_checkpoint",
    "get_model",
    "get_variant",
    "inference_model",
    "inspect_file",
    "list_models",
    "load_checkpoint",
    "predict_images",
    "published_models",
    "reproduce_table",
    "verify_bundle",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
