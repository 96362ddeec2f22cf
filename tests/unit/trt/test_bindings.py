from __future__ import annotations

import gc
import weakref
from importlib.metadata import Distribution
from typing import Any

import pytest

from riformer_deploy.bundle.engine_metadata import TensorRTFlavor
from riformer_deploy.common.errors import MissingDependencyError
from riformer_deploy.trt.bindings import Log, TensorRT, cuda_of, load, started
from tests.fakes.api import FLAVORS, SEVERITIES
from tests.fakes.gpu import FakeGpu
from tests.fakes.tensorrt import bindings


@pytest.fixture(params=FLAVORS)
def trt(request: pytest.FixtureRequest) -> TensorRT:
    """A fake of each flavor."""
    return bindings(request.param, FakeGpu())


def _say_all(trt: TensorRT) -> None:
    for severity in SEVERITIES:
        trt.module._say(severity, f"{severity.lower()} text")


def test_a_log_holds_all_but_the_chatter_and_tells_of_warnings_and_errors(trt: TensorRT) -> None:
    told: list[tuple[str, str]] = []
    log = Log(trt, lambda *said: told.append(said))
    runtime = started(trt.module.Runtime, log)
    assert runtime is not None
    _say_all(trt)
    assert [severity for severity, _ in log.lines] == ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO"]
    assert told == list(log.lines)[:3]
    assert log.errors == ["internal_error text", "error text"]


def test_every_log_hears_what_is_said_while_it_lives_and_one_logger_serves_them_all(trt: TensorRT) -> None:
    first, second = Log(trt), Log(trt)
    assert first.logger is second.logger
    runtimes = [started(trt.module.Runtime, log) for log in (first, second)]
    del first
    trt.module._say("ERROR", "late")
    assert second.errors == ["late"]
    assert all(runtimes)


def test_a_log_is_gone_when_nobody_holds_it(trt: TensorRT) -> None:
    log = Log(trt)
    watched = weakref.ref(log)
    gc.disable()
    try:
        del log
        assert watched() is None
    finally:
        gc.enable()


def test_a_log_may_keep_the_last_messages_only(trt: TensorRT) -> None:
    log = Log(trt, kept=2)
    runtime = started(trt.module.Runtime, log)
    assert runtime is not None
    for number in range(5):
        trt.module._say("ERROR", f"{number}")
    assert log.errors == ["3", "4"]


def test_what_cannot_start_is_none_with_the_reason_in_the_log() -> None:
    trt = bindings(FLAVORS[0], FakeGpu(), has_driver=False)
    log = Log(trt)
    assert started(trt.module.Builder, log) is None
    assert started(trt.module.Runtime, log) is None
    assert log.errors == ["CUDA initialization failure with error: 35"] * 2


def test_another_type_error_is_not_taken_for_a_missing_driver(trt: TensorRT) -> None:
    with pytest.raises(TypeError, match="takes"):
        started(lambda _: trt.module.Runtime(), Log(trt))


class Installed(Distribution):
    """A distribution of a name."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    @property
    def metadata(self) -> Any:
        return {"Name": self._name}

    def read_text(self, filename: str) -> str | None:
        raise NotImplementedError(filename)

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError(path)


@pytest.mark.parametrize(
    ("names", "backend", "found"),
    [
        (["tensorrt-cu13"], TensorRTFlavor.TENSORRT, 13),
        (["numpy", "Tensorrt_CU12-libs"], TensorRTFlavor.TENSORRT, 12),
        (["tensorrt-rtx-cu13"], TensorRTFlavor.TENSORRT, None),
        (["tensorrt_rtx_cu13_libs", "tensorrt-cu12"], TensorRTFlavor.TENSORRT_RTX, 13),
        (["tensorrt", None, "tensorrt-cu13-bindings"], TensorRTFlavor.TENSORRT, None),
    ],
)
def test_the_libraries_cuda_is_in_their_distributions_name(
    monkeypatch: pytest.MonkeyPatch, names: list[str | None], backend: TensorRTFlavor, found: int | None
) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda: map(Installed, names))
    assert cuda_of(backend) == found


def test_bindings_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("riformer_deploy.common.dependencies._installed", lambda _: None)
    with pytest.raises(MissingDependencyError, match="tensorrt is not installed"):
        load(TensorRTFlavor.TENSORRT)


def test_the_real_rtx_is_loaded_and_its_first_logger_serves_all() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")
    trt = load(TensorRTFlavor.TENSORRT_RTX)
    assert trt.version == trt.module.__version__
    first, second = Log(trt), Log(trt)
    one, two = started(trt.module.Runtime, first), started(trt.module.Runtime, second)
    assert one is not None
    assert two is not None
    del one, first
    assert two.deserialize_cuda_engine(b"no plan") is None
    assert second.errors
    assert not any("differs" in text for _, text in second.lines)
