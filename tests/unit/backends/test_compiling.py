from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
import torch

from riformer_deploy.backends.compiling import brief, compile_module, first_calls, quiet


class InductorError(RuntimeError):
    """What a compiler of PyTorch's raises."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no kernel", "InductorError: no kernel"),
        ("", "InductorError: "),
        ("no kernel\n\nSet TORCH_LOGS for more", "InductorError: no kernel"),
        (
            "backend='inductor' raised:\nCppCompileError: C++ compile error\n\nCommand:\n/usr/bin/g++ -O3",
            "InductorError: backend='inductor' raised: CppCompileError: C++ compile error",
        ),
        (
            "C++ compile failed\n\nCommand:\ng++ -I x\n\nOutput:\nfatal error: omp.h: No such file\nmore",
            "InductorError: C++ compile failed fatal error: omp.h: No such file",
        ),
        ("first:\nsecond:", "InductorError: first: second:"),
    ],
)
def test_an_error_of_pages_is_its_first_line_and_the_cause(text: str, shown: str) -> None:
    assert brief(InductorError(text)) == shown


def test_an_error_of_one_endless_line_is_cut() -> None:
    shown = brief(InductorError("x" * 1000))
    assert len(shown) == 500
    assert shown.endswith("x...")


def test_warnings_of_pytorch_are_logged_and_no_errors(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), quiet():
        warnings.warn("TensorFloat32 tensor cores available but not enabled", UserWarning, stacklevel=1)
    assert "UserWarning: TensorFloat32 tensor cores available but not enabled" in caplog.text
    with pytest.raises(UserWarning):
        warnings.warn("ours again", UserWarning, stacklevel=1)


def test_warnings_before_an_error_are_logged_and_the_error_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    def compile_it() -> None:
        with first_calls():
            warnings.warn("first", DeprecationWarning, stacklevel=1)
            raise InductorError

    with caplog.at_level(logging.DEBUG), pytest.raises(InductorError):
        compile_it()
    assert "DeprecationWarning: first" in caplog.text


def test_the_limit_of_compilations_is_as_before_afterwards() -> None:
    limit = torch._dynamo.config.recompile_limit
    with first_calls():
        pass
    assert torch._dynamo.config.recompile_limit == limit


class LateCompiler:
    """A compiler whose first resets make PyTorch note one more, as importing parts of inductor does."""

    def __init__(self, faults: int) -> None:
        self.faults = faults

    def __call__(self, *_: object) -> Any:
        raise NotImplementedError

    def reset(self) -> None:
        if self.faults:
            torch._dynamo.eval_frame.cached_backends[-self.faults] = self
            self.faults -= 1


@pytest.fixture
def late_compiler(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> LateCompiler:
    """The one compiler that PyTorch knows of, while nothing is compiled."""
    compiler = LateCompiler(request.param)
    monkeypatch.setattr(torch._dynamo.eval_frame, "cached_backends", {1: compiler})
    monkeypatch.setattr("riformer_deploy.backends.compiling._OPEN", set())
    return compiler


@pytest.mark.parametrize("late_compiler", [1], indirect=True)
def test_a_compiler_that_pytorch_meets_while_it_forgets_breaks_nothing(late_compiler: LateCompiler) -> None:
    compile_module("owner", torch.nn.Identity(), None)
    assert late_compiler.faults == 0
    assert late_compiler not in torch._dynamo.eval_frame.cached_backends.values()


@pytest.mark.parametrize("late_compiler", [100], indirect=True)
@pytest.mark.usefixtures("late_compiler")
def test_what_pytorch_never_forgets_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="changed size"):
        compile_module("owner", torch.nn.Identity(), None)
