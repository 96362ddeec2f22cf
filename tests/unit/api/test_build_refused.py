"""What cannot be built as build, and bundles that are left as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from riformer_deploy.api import build
from riformer_deploy.api.build import build_engines, trtexec_lines
from riformer_deploy.bundle.engine_metadata import BatchProfile, BuildSettings, TensorRTFlavor
from riformer_deploy.bundle.store import Bundle
from riformer_deploy.common.enums import HardwareCompatibility, Precision
from riformer_deploy.common.errors import (
    BundleError,
    EngineBuildError,
    OptionError,
    RuntimeFailureError,
)
from riformer_deploy.system.cuda_driver import Driver, Gpu, query_driver
from riformer_deploy.trt.build_options import BuildOptions

pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")

NO_GPU = Driver(cuda_version=None, gpus=(), problem="no NVIDIA driver (libcuda.so.1) is installed")
ENGINE = "model.fp32.tensorrt-rtx.engine"
needs_no_gpu = pytest.mark.skipif(bool(query_driver().gpus), reason="with a GPU this works")
pytestmark = pytest.mark.usefixtures("no_gpu")


def _files(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(bundle.iterdir())}


@pytest.mark.parametrize(
    ("options", "said", "remedy"),
    [
        (
            BuildOptions(precisions=(Precision.FP32, Precision.FP16, Precision.INT8)),
            "holds no fp16, int8 model, only fp32",
            "riformer-deploy export CKPT --precision fp16",
        ),
        (BuildOptions(image_size_px=(64, 64)), "take images of 64x48 px, not 64x64", "--image-size"),
        (
            BuildOptions(settings=BuildSettings(compute_capabilities=("8.9", "9.0"))),
            "can be built for 7.5, 8.0, 8.6, 8.9, 12.0, 12.1, current; not for 9.0",
            "--compute-capability",
        ),
        (
            BuildOptions(
                timing_cache=Path("cache"),
                settings=BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
            ),
            "TensorRT-RTX has no use for these options",
            "",
        ),
    ],
    ids=["precision", "image size", "compute capability", "options of TensorRT"],
)
def test_what_cannot_be_honoured_is_refused_and_nothing_is_built(
    tiny_bundle_copy: Path, options: BuildOptions, said: str, remedy: str
) -> None:
    before = _files(tiny_bundle_copy)
    with pytest.raises(OptionError, match=said) as caught:
        build_engines(tiny_bundle_copy, options)
    assert remedy in caught.value.remedy
    assert _files(tiny_bundle_copy) == before


_FP8 = "fp8 needs compute capability 8.9 or later"


def _older(name: str) -> Driver:
    gpu = Gpu(name="GPU", compute_capability=name, memory_bytes=1)
    return Driver(cuda_version="13.0", gpus=(gpu,), problem=None)


def test_fp8_is_refused_for_gpus_that_lack_it_and_nothing_is_built(fp8_bundle: Path) -> None:
    steps: list[str] = []
    settings = BuildSettings(compute_capabilities=("8.0", "8.9", "8.6"))
    with pytest.raises(OptionError, match=_FP8) as caught:
        build_engines(fp8_bundle, BuildOptions(settings=settings), steps.append)
    assert caught.value.details == ("fp8: --compute-capability 8.0", "fp8: --compute-capability 8.6")
    assert steps == []
    ampere = BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS)
    with pytest.raises(OptionError, match=_FP8) as caught:
        trtexec_lines(fp8_bundle, BuildOptions(settings=ampere))
    assert caught.value.details == ("fp8: --hardware-compat ampere-plus",)
    lines = trtexec_lines(fp8_bundle, BuildOptions())
    assert sum("model.fp8.onnx" in line for line in lines) == 2


def test_fp8_is_refused_by_tensorrt_on_a_gpu_that_lacks_it(
    fp8_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "query_driver", lambda: _older("8.6"))
    with pytest.raises(OptionError, match=_FP8) as caught:
        build_engines(fp8_bundle, BuildOptions(backend=TensorRTFlavor.TENSORRT))
    assert caught.value.details == ("fp8: this GPU, of compute capability 8.6",)


def test_the_builder_says_itself_what_fp8_needs(fp8_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "refuse_precisions", lambda *_: None)
    with pytest.raises(EngineBuildError, match="could not build") as caught:
        build_engines(fp8_bundle, BuildOptions(settings=BuildSettings(compute_capabilities=("8.6",))))
    assert caught.value.remedy.startswith(_FP8)


def test_every_option_that_a_flavor_lacks_is_named_at_once(tiny_bundle: Path) -> None:
    options = BuildOptions(
        timing_cache=Path("cache"),
        settings=BuildSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
    )
    with pytest.raises(OptionError) as caught:
        build_engines(tiny_bundle, options)
    assert [detail.partition(":")[0] for detail in caught.value.details] == [
        "--hardware-compat",
        "--timing-cache",
    ]
    with pytest.raises(OptionError, match="TensorRT has no use") as caught:
        trtexec_lines(tiny_bundle, BuildOptions(settings=BuildSettings(compute_capabilities=("8.9",))))
    assert caught.value.details[0].startswith("--compute-capability")


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (BuildSettings(compute_capabilities=("7.5",)), "Leave 7.5 out of --compute-capability"),
        (BuildSettings(workspace_bytes=1), "more scratch memory with --workspace"),
        pytest.param(BuildSettings(refittable=True), "needs a GPU", marks=needs_no_gpu),
        pytest.param(BuildSettings(version_compatible=True), "lean runtime", marks=needs_no_gpu),
    ],
    ids=["7.5", "workspace", "refittable", "version-compatible"],
)
@pytest.mark.untraced
def test_a_builder_that_fails_says_why_and_the_bundle_is_as_it_was(
    engine_bundle_copy: Path, settings: BuildSettings, remedy: str
) -> None:
    before = _files(engine_bundle_copy)
    with pytest.raises(EngineBuildError, match=r"could not build an engine of .*model\.fp32\.onnx") as caught:
        build_engines(engine_bundle_copy, BuildOptions(settings=settings))
    assert caught.value.details  # the builder's own words
    assert remedy in caught.value.remedy
    assert _files(engine_bundle_copy) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError], ids=lambda kind: kind.__name__)
def test_an_interrupted_build_stops_the_builder_and_the_bundle_is_as_it_was(
    engine_bundle_copy: Path, error: type[BaseException]
) -> None:
    before, steps = _files(engine_bundle_copy), 0

    def interrupt(_step: str) -> None:
        nonlocal steps
        steps += 1
        raise error("enough")

    with pytest.raises(error, match="enough"):
        build_engines(engine_bundle_copy, BuildOptions(), interrupt)
    assert steps < 5  # of dozens
    assert _files(engine_bundle_copy) == before


def test_a_file_of_the_engines_name_that_is_not_the_bundles_is_not_overwritten(
    tiny_bundle_copy: Path,
) -> None:
    (tiny_bundle_copy / ENGINE).write_bytes(b"somebody's")
    with pytest.raises(BundleError) as caught:
        build_engines(tiny_bundle_copy, BuildOptions())
    assert ENGINE in caught.value.details
    assert (tiny_bundle_copy / ENGINE).read_bytes() == b"somebody's"
    assert Bundle.open(tiny_bundle_copy).manifest.engines == ()


def test_an_altered_graph_is_refused(tiny_bundle_copy: Path, onnx_of: Callable[[Path], Path]) -> None:
    path = onnx_of(tiny_bundle_copy)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="is not the file that the bundle recorded"):
        build_engines(tiny_bundle_copy, BuildOptions())


def test_nothing_can_be_built_for_the_gpu_at_hand_where_there_is_none(tiny_bundle_copy: Path) -> None:
    before = _files(tiny_bundle_copy)
    steps: list[str] = []
    options = BuildOptions(
        backend=TensorRTFlavor.TENSORRT_RTX, settings=BuildSettings(compute_capabilities=("current",))
    )
    with pytest.raises(RuntimeFailureError, match=r"for the GPU of this machine, and no NVIDIA") as caught:
        build_engines(tiny_bundle_copy, options, steps.append)
    assert "leave the option out" in caught.value.remedy
    assert (_files(tiny_bundle_copy), steps) == (before, [])


def test_tensorrt_without_a_gpu_fails_at_once_with_what_is_missing(tiny_bundle: Path) -> None:
    steps: list[str] = []
    with pytest.raises(RuntimeFailureError, match=r"no NVIDIA driver \(libcuda\.so\.1\)") as caught:
        build_engines(tiny_bundle, BuildOptions(backend=TensorRTFlavor.TENSORRT), steps.append)
    assert "--backend tensorrt-rtx" in caught.value.remedy
    assert steps == []


def test_a_batch_that_no_engine_takes_is_refused_before_anything_is_built(engine_bundle: Path) -> None:
    huge = BatchProfile(minimum=1, optimum=8, maximum=100_000_000)
    with pytest.raises(OptionError, match=r"2\^31 is the limit"):
        build_engines(engine_bundle, BuildOptions(profiles=(huge,)))
