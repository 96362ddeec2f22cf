from __future__ import annotations

import pytest

from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.trt.invalidity import REMEDIES, remedy_of
from tests.fakes.api import api_of
from tests.manifests import engine_of

RTX = engine_of(backend=TensorRTFlavor.TENSORRT_RTX, backend_version="1.7.1")
REBUILD = "Run `riformer-deploy build --precision fp32 --backend tensorrt-rtx` again"


def test_every_reason_that_the_bindings_know_has_its_remedy() -> None:
    assert set(REMEDIES) == set(api_of("tensorrt_rtx-1.7").enums["EngineInvalidityDiagnostics"])


@pytest.mark.parametrize("reason", REMEDIES)
def test_only_what_building_again_mends_is_to_be_built_again(reason: str) -> None:
    mends = reason in ("VERSION_MISMATCH", "MALFORMED_ENGINE", "INSUFFICIENT_GPU_MEMORY")
    assert (REBUILD in remedy_of(reason, RTX)) == mends


def test_a_gpu_that_is_not_supported_is_sent_to_tensorrt() -> None:
    assert "--backend tensorrt` here, or take the bundle to another GPU." in remedy_of("UNSUPPORTED_CC", RTX)
    tensorrt = remedy_of("UNSUPPORTED_CC", engine_of())
    assert tensorrt == ("Run `riformer-deploy build --precision fp32 --backend tensorrt` again on this GPU.")


def test_the_version_that_built_it_is_named_and_what_is_not_known_is_built_again() -> None:
    assert remedy_of("VERSION_MISMATCH", RTX) == f"{REBUILD}, or install TensorRT-RTX 1.7.1, which built it."
    assert remedy_of("A_NEW_ONE", RTX) == f"{REBUILD}."
