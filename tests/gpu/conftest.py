"""What needs an NVIDIA GPU runs with ``--run-gpu`` only; then a machine without one fails.

Engines are tested with every TensorRT that is installed, and with a stand-in for it, which computes with
PyTorch: on a GPU that TensorRT-RTX does not support, our own path still runs for real. With
``--stand-in cpu`` the stand-in's tests (``-k stand-in``) run without a GPU.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from riformer_deploy.api.build import build_engines
from riformer_deploy.bundle.engine_metadata import BatchProfile, TensorRTFlavor
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.dependencies import installed_version
from riformer_deploy.trt.bindings import load
from riformer_deploy.trt.build_options import BuildOptions
from riformer_deploy.trt.validity import validity
from tests.fakes.standin.installing import standing_in

HERE = Path(__file__).parent
PROFILES = (BatchProfile(minimum=1, optimum=1, maximum=1), BatchProfile(minimum=2, optimum=8, maximum=16))
STAND_IN = "stand-in"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip this folder unless it was asked for."""
    if not config.getoption("--run-gpu"):
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU; selected by --run-gpu"))


@pytest.fixture(scope="session")
def digits_on_gpu(request: pytest.FixtureRequest) -> Path:
    """The bundle of the digits in fp32, fp16 and int8: the one in ``--bundles``, else exported here."""
    given = request.config.getoption("--bundles")
    if given is not None:
        return Path(given) / "digits"
    exported: Path = request.getfixturevalue("precise_bundle")
    return exported


@pytest.fixture(scope="session", params=[*TensorRTFlavor, STAND_IN], ids=str)
def backend(request: pytest.FixtureRequest) -> Iterator[TensorRTFlavor]:
    """Each flavor that is installed, and the stand-in, which has TensorRT's place meanwhile."""
    if request.param == STAND_IN:
        with standing_in(request.config.getoption("--stand-in")) as there:
            yield TensorRTFlavor.TENSORRT
            assert not there.gpu.violations
        return
    flavor = TensorRTFlavor(request.param)
    if installed_version(flavor.module) is None:
        pytest.skip(f"{flavor.label} is not installed")
    yield flavor


@pytest.fixture(scope="session")
def built_engines(
    backend: TensorRTFlavor, digits_on_gpu: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The trained digits model with engines of every precision, built here; they may not run on this GPU."""
    folder = shutil.copytree(digits_on_gpu, tmp_path_factory.mktemp("gpu") / "digits")
    build_engines(folder, BuildOptions(backend=backend, profiles=PROFILES))
    return Bundle.open(folder)


@pytest.fixture(scope="session")
def engines(backend: TensorRTFlavor, built_engines: Bundle) -> Bundle:
    """Engines that TensorRT itself does not refuse for the sake of this GPU."""
    for engine in built_engines.manifest.engines:
        told = validity(load(backend), built_engines.path_of(engine.file).read_bytes())
        if told is not None and "UNSUPPORTED_CC" in told[1]:
            pytest.skip(f"{backend.label} does not support this GPU ({told[0]}: {', '.join(told[1])})")
    return built_engines


@pytest.fixture
def tiny_bundle_on_gpu(request: pytest.FixtureRequest) -> Bundle:
    """A bundle whose model is small, open; it is not changed."""
    given = request.config.getoption("--bundles")
    return Bundle.open(Path(given) / "digits" if given else request.getfixturevalue("tiny_bundle"))
