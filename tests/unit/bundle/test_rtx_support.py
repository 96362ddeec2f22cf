from __future__ import annotations

import pytest

from riformer_deploy.bundle.rtx_support import major_minor, rtx_support
from riformer_deploy.trt.builder import compute_capabilities
from tests.fakes.gpu import FakeGpu
from tests.fakes.tensorrt import bindings


@pytest.mark.parametrize("version", ["1.7", "1.7.1", "1.7.1.116", "1.7.1.post1"])
def test_patches_of_a_version_support_the_same(version: str) -> None:
    assert rtx_support(version) == rtx_support("1.7.1.116") is not None


@pytest.mark.parametrize("version", ["1.70", "1.8.0", "2.7", "nightly", ""])
def test_nothing_is_said_of_versions_that_nobody_asked(version: str) -> None:
    assert rtx_support(version) is None


@pytest.mark.parametrize(
    ("capability", "default", "at_all"),
    [
        ("7.0", False, False), ("7.5", False, True), ("8.0", True, True), ("8.7", False, False),
        ("8.9", True, True), ("9.0", False, False), ("10.0", False, False), ("11.0", False, False),
        ("12.0", True, True), ("12.1", True, True), ("12.9", True, True), ("13.0", True, True),
    ],
)  # fmt: skip
def test_version_1_7_runs_on_what_it_says(capability: str, *, default: bool, at_all: bool) -> None:
    support = rtx_support("1.7.1.116")
    assert support is not None
    assert (support.runs_by_default(capability), support.supports(capability)) == (default, at_all)
    assert str(support) == "8.0, 8.6, 8.9, 12.0 and later"


def test_what_can_be_named_is_what_the_bindings_name() -> None:
    support = rtx_support("1.7.1.116")
    assert support is not None
    known = compute_capabilities(bindings("tensorrt_rtx-1.7", FakeGpu()))
    assert {*support.named, "current"} == set(known)


def test_numbers_are_compared_as_numbers() -> None:
    assert major_minor("9.0") < major_minor("10.0") < major_minor("12") < major_minor("12.1")
