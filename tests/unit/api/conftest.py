"""What tests of several commands' steps begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from riformer_deploy.api.tune_artifacts import TuneSetup
from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import Group
from riformer_deploy.data.calibration import random_set
from riformer_deploy.model.reparameterize import fold


@pytest.fixture
def tune_setup(tiny_bundle: Path) -> TuneSetup:
    """The tiny bundle, to be tuned for ONNX Runtime."""
    bundle = Bundle.open(tiny_bundle)
    manifest = bundle.manifest
    return TuneSetup(
        bundle=bundle,
        model=fold(stored_model(bundle, manifest.reference, torch.float32)),
        images=random_set(manifest.model.preprocessing),
        group=Group.ONNX,
        batches=(1, 2),
        threads=1,
    )
