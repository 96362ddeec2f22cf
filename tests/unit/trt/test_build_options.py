from __future__ import annotations

from collections.abc import Callable

import pytest

from riformer_deploy.bundle.engine_metadata import BuildSettings, TensorRTFlavor
from riformer_deploy.common.enums import Precision
from riformer_deploy.common.errors import MissingDependencyError, OptionError
from riformer_deploy.system.cuda_driver import Driver, Gpu
from riformer_deploy.trt.build_options import BuildOptions, choose_backend, unsupported_gpu

NO_GPU = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
H200 = Driver(
    cuda_version="13.0", gpus=(Gpu(name="H200", compute_capability="9.0", memory_bytes=1),), problem=None
)


@pytest.fixture
def only(pretend_versions: Callable[..., None]) -> Callable[..., None]:
    """``only(*flavors)``: these flavors, and no others, are installed."""

    def pretend(*installed: TensorRTFlavor) -> None:
        given = {str(flavor): "10.0" for flavor in installed}
        pretend_versions(lambda name: name.startswith("tensorrt"), given)

    return pretend


def test_options_that_are_wrong_in_themselves_are_listed_at_once() -> None:
    with pytest.raises(OptionError) as caught:
        BuildOptions(
            precisions=(Precision.FP32, Precision.FP32),
            settings=BuildSettings(
                workspace_bytes=0, optimization_level=6, compute_capabilities=("8.9", "8.9", "current")
            ),
        )
    said = " ".join(caught.value.details)
    assert len(caught.value.details) == 5
    for part in (
        "each precision",
        "0 bytes",
        "0 to 5, got 6",
        "each compute capability",
        "current stands alone",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("wanted", "driver", "installed", "chosen"),
    [
        (None, NO_GPU, tuple(TensorRTFlavor), TensorRTFlavor.TENSORRT_RTX),
        (None, H200, tuple(TensorRTFlavor), TensorRTFlavor.TENSORRT),
        (None, H200, (TensorRTFlavor.TENSORRT_RTX,), TensorRTFlavor.TENSORRT_RTX),
        (
            TensorRTFlavor.TENSORRT,
            H200,
            (),
            TensorRTFlavor.TENSORRT,
        ),  # that it is missing is told when it is loaded
        (TensorRTFlavor.TENSORRT_RTX, H200, tuple(TensorRTFlavor), TensorRTFlavor.TENSORRT_RTX),
        (TensorRTFlavor.TENSORRT_RTX, NO_GPU, tuple(TensorRTFlavor), TensorRTFlavor.TENSORRT_RTX),
    ],
)
def test_the_flavor_is_the_one_asked_for_else_tensorrt_where_there_is_a_gpu(
    only: Callable[..., None],
    wanted: TensorRTFlavor | None,
    driver: Driver,
    installed: tuple[TensorRTFlavor, ...],
    chosen: TensorRTFlavor,
) -> None:
    only(*installed)
    assert choose_backend(wanted, driver) is chosen


@pytest.mark.parametrize(
    ("backend", "version", "capability", "warned"),
    [
        (TensorRTFlavor.TENSORRT_RTX, "1.7.1.116", "9.0", True),
        (TensorRTFlavor.TENSORRT_RTX, "1.7.1.116", "10.0", True),
        (TensorRTFlavor.TENSORRT_RTX, "1.7.1.116", "8.9", False),
        (TensorRTFlavor.TENSORRT_RTX, "1.7.1.116", "12.1", False),
        (TensorRTFlavor.TENSORRT_RTX, "9.9", "9.0", False),  # not known
        (TensorRTFlavor.TENSORRT, "10.16.1.11", "9.0", False),
    ],
)
def test_a_gpu_that_the_flavor_does_not_support_is_known_when_it_builds(
    backend: TensorRTFlavor, version: str, capability: str, *, warned: bool
) -> None:
    gpu = Gpu(name="Some GPU", compute_capability=capability, memory_bytes=1)
    driver = Driver(cuda_version="13.0", gpus=(gpu,), problem=None)
    found = unsupported_gpu(backend, version, driver)
    assert (found is not None) == warned
    if found is not None:
        assert f"does not support compute capability {capability} (Some GPU)" in found
        assert "--backend tensorrt for" in found
    assert unsupported_gpu(backend, version, NO_GPU) is None


@pytest.mark.parametrize(
    ("driver", "installed", "commands"),
    [
        (NO_GPU, (), ("tensorrt-rtx",)),
        (NO_GPU, (TensorRTFlavor.TENSORRT,), ("tensorrt-rtx",)),
        (H200, (), ("tensorrt-rtx", "tensorrt")),
    ],
    ids=["nothing", "TensorRT without a GPU", "a GPU and nothing else"],
)
def test_without_a_flavor_that_works_here_the_commands_that_install_one_are_told(
    only: Callable[..., None],
    driver: Driver,
    installed: tuple[TensorRTFlavor, ...],
    commands: tuple[str, ...],
) -> None:
    only(*installed)
    with pytest.raises(MissingDependencyError) as caught:
        choose_backend(None, driver)
    for name in ("tensorrt", "tensorrt-rtx"):
        assert (f'pip install "{name}>=' in caught.value.remedy) == (name in commands)
