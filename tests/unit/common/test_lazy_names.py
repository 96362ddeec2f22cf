from __future__ import annotations

import fractions
from pathlib import Path

import pytest

from riformer_deploy.common.lazy_names import attach, read_stub


def test_a_stub_names_what_it_imports_under_the_same_name_and_nothing_else(tmp_path: Path) -> None:
    stub = tmp_path / "__init__.pyi"
    stub.write_text(
        "from typing import Any\n"
        "from fractions import Fraction as Fraction\n"
        "from os import path as elsewhere, sep as sep\n"
        "__version__: str\n"
        "def __getattr__(name: str) -> Any: ...\n"
    )
    assert read_stub(stub) == {"Fraction": "fractions", "sep": "os"}


def test_a_stub_that_was_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"__init__\.pyi"):
        read_stub(tmp_path / "__init__.pyi")


def test_a_name_is_its_module_s_and_another_is_an_attribute_error_that_names_the_package() -> None:
    get = attach("package", {"Fraction": "fractions"})
    assert get("Fraction") is fractions.Fraction
    with pytest.raises(AttributeError, match="'package' has no attribute 'Decimal'"):
        get("Decimal")
