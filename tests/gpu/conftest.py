"""What needs an NVIDIA GPU runs with ``--run-gpu`` only; then a machine without one fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from riformer_deploy.build_options import BuildOptions
from riformer_deploy.bundles import Bundle
from riformer_deploy.choices import Precision
from riformer_deploy.engines import build_engines
from riformer_deploy.optional import installed_version
from riformer_deploy.passports import Backend, BatchProfile
from riformer_deploy.pipeline import ExportOptions, export_checkpoint

HERE = Path(__file__).parent
PROFILES = (BatchProfile(minimum=1, optimum=1, maximum=1), BatchProfile(minimum=2, optimum=8, maximum=16))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip this folder unless it was asked for."""
    if not config.getoption("--run-gpu"):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; selected by --run-gpu"))


@pytest.fixture(scope="session", params=list(Backend), ids=str)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each flavour that is installed."""
    flavour = Backend(request.param)
    if installed_version(flavour.module) is None:
        pytest.skip(f"{flavour.label} is not installed")
    return flavour


@pytest.fixture(scope="session")
def engines(
    backend: Backend, repository: Path, digits_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The trained digits model with engines of every precision, built here."""
    folder = tmp_path_factory.mktemp("gpu") / "digits"
    precisions = (Precision.FP32, Precision.FP16, Precision.INT8)
    options = ExportOptions(
        checkpoint=digits_checkpoint,
        output=folder,
        image_size_px=(64, 64),
        precisions=precisions,
        calibration=str(repository / "examples" / "digits" / "calibration"),
    )
    assert export_checkpoint(options).bundle is not None
    build_engines(folder, BuildOptions(backend=backend, profiles=PROFILES))
    return Bundle.open(folder)


@pytest.fixture
def tiny_bundle_on_gpu(tiny_bundle: Path) -> Bundle:
    """The tiny bundle, open."""
    return Bundle.open(tiny_bundle)
