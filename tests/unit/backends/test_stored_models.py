from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from riformer_deploy.api.inspect import BundleInspection, inspect_file
from riformer_deploy.api.parity import verify_bundle
from riformer_deploy.backends.stored_models import stored_model
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.errors import BundleError, BundleIntegrityError


def _architecture(bundle: Path, **changes: object) -> None:
    path = bundle / "bundle.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data["model"]["architecture"] |= changes
    path.write_text(json.dumps(data), encoding="utf-8")


def test_a_manifest_that_describes_another_model_is_refused_before_it_is_run(tiny_bundle_copy: Path) -> None:
    layers = Bundle.open(tiny_bundle_copy).manifest.model.architecture.layers
    _architecture(tiny_bundle_copy, layers=[*layers[:-1], layers[-1] + 1])
    bundle = Bundle.open(tiny_bundle_copy)
    with pytest.raises(BundleIntegrityError, match="does not hold the model") as caught:
        stored_model(bundle, bundle.manifest.reference, torch.float32)
    assert "the manifest: training form" in caught.value.details[0]


@pytest.mark.parametrize("change", [{"embed_dims": [60_000, 50_000, 60_000, 50_000]}, {"layers": [900] * 4}])
def test_widths_and_depths_that_the_weights_cannot_have_are_told_by_their_size_alone(
    tiny_bundle_copy: Path, change: dict[str, object]
) -> None:
    _architecture(tiny_bundle_copy, **change)
    found = inspect_file(tiny_bundle_copy)
    assert isinstance(found, BundleInspection)
    assert not found.intact
    assert "training.pth holds" in found.problems[0]
    with pytest.raises(BundleIntegrityError, match=r"weights, as the architecture in bundle\.json has"):
        verify_bundle(tiny_bundle_copy)


@pytest.mark.parametrize(
    "change",
    [
        {"layers": [10**9, 1, 1, 1]},
        {"embed_dims": [10**6, 1, 2, 3]},
        {"hidden_dims": [10**6] * 4},
        {"num_classes": 10**9},
    ],
)
def test_an_architecture_beyond_all_bounds_is_no_manifest(
    tiny_bundle_copy: Path, change: dict[str, object]
) -> None:
    _architecture(tiny_bundle_copy, **change)
    with pytest.raises(BundleError, match="not a valid manifest") as caught:
        Bundle.open(tiny_bundle_copy)
    assert "may be at most" in str(caught.value)
