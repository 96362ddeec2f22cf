from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from riformer_deploy.common.dependencies import PACKAGES, distribution_version, installed_version, require
from riformer_deploy.common.errors import MissingDependencyError

Install = Callable[..., None]


@pytest.fixture(name="install")
def fixture_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """An import path on which nothing is installed but what the test puts there."""
    for module in [name for name in sys.modules if name.partition(".")[0] in {"onnxruntime", "pycuda"}]:
        monkeypatch.delitem(sys.modules, module)
    standard = [path for path in sys.path if path and "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *standard])
    importlib.invalidate_caches()

    def install(distribution: str, version: str, module: str = "", code: str = "") -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        if module:
            (tmp_path / f"{module}.py").write_text(code)
        importlib.invalidate_caches()

    yield install
    for name in ("onnxruntime", "pycuda"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("module", PACKAGES)
@pytest.mark.usefixtures("install")
def test_an_absent_package_is_named_with_the_command_that_installs_it(module: str) -> None:
    package = PACKAGES[module]
    assert installed_version(module) is None
    with pytest.raises(MissingDependencyError, match="is not installed") as caught:
        require(module)
    assert package.distributions[0] in caught.value.message
    assert (
        caught.value.remedy
        == f'Run: pip install "{package.distributions[0]}{package.extras}>={package.minimum}"'
    )


def test_a_module_that_lies_about_is_not_an_installed_package(install: Install, tmp_path: Path) -> None:
    install("something-else", "1.0")
    (tmp_path / "pycuda.py").write_text("")
    with pytest.raises(MissingDependencyError, match="pycuda is not installed"):
        require("pycuda")


@pytest.mark.parametrize("version", ["2023.1.1", "2024.1rc1", "0"])
def test_too_old_a_package_is_refused_unimported(install: Install, version: str) -> None:
    install("pycuda", version, "pycuda", "raise SystemExit('imported')")
    with pytest.raises(MissingDependencyError, match=f"pycuda {version} is too old: 2024.1 or newer"):
        require("pycuda")
    assert "pycuda" not in sys.modules


@pytest.mark.parametrize("version", ["2024.1", "2024.1.2", "2025.10", "2024.1.post1"])
def test_a_package_new_enough_is_imported(install: Install, version: str) -> None:
    install("pycuda", version, "pycuda", "answer = 42")
    assert installed_version("pycuda") == version
    assert require("pycuda").answer == 42


def test_the_other_distribution_of_a_module_will_do(install: Install) -> None:
    install("onnxruntime-gpu", "1.21.0", "onnxruntime", "answer = 42")
    assert installed_version("onnxruntime") == "1.21.0"
    assert require("onnxruntime").answer == 42


@pytest.mark.parametrize("first", ["onnxruntime", "onnxruntime-gpu"])
def test_of_two_distributions_the_one_that_is_imported_is_named(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    versions = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}
    install(first, versions.pop(first), "onnxruntime", f"answer = {first!r}")
    other, version = versions.popitem()
    shadowed = tmp_path / "shadowed"
    info = shadowed / f"{other.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {other}\nVersion: {version}\n")
    (shadowed / "onnxruntime.py").write_text(f"answer = {other!r}")
    monkeypatch.setattr(sys, "path", [sys.path[0], str(shadowed), *sys.path[1:]])
    importlib.invalidate_caches()
    expected = {"onnxruntime": "1.30.0", "onnxruntime-gpu": "1.31.1"}[first]
    assert installed_version("onnxruntime") == expected
    assert require("onnxruntime").answer == first


def test_too_old_a_package_is_named_as_it_was_installed(install: Install) -> None:
    install("onnxruntime-gpu", "1.19.2", "onnxruntime")
    with pytest.raises(MissingDependencyError, match=r"onnxruntime-gpu 1\.19\.2 is too old"):
        require("onnxruntime")


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes; ctypes.CDLL('libabsent.so.99')",
        "import absent_module",
        "raise ImportError('broken')",
        "import sys; sys.absent_attribute",  # a binary module built for another NumPy
        "raise RuntimeError('no driver')",
    ],
)
def test_a_broken_package_says_why_it_cannot_be_imported(install: Install, code: str) -> None:
    install("pycuda", "2025.1", "pycuda", code)
    with pytest.raises(MissingDependencyError, match=r"pycuda 2025\.1 is installed but cannot be") as caught:
        require("pycuda")
    assert caught.value.__cause__ is not None
    assert str(caught.value.__cause__) in caught.value.message
    assert "doctor" in caught.value.remedy


def test_a_version_that_is_none_is_refused_by_name(install: Install) -> None:
    install("pycuda", "unknown", "pycuda")
    with pytest.raises(MissingDependencyError, match="pycuda unknown"):
        require("pycuda")


def test_the_table_is_keyed_by_import_name_and_its_commands_name_the_packages_themselves() -> None:
    assert all(package.module == module for module, package in PACKAGES.items())
    assert PACKAGES["onnxruntime"].install_command == 'pip install "onnxruntime>=1.20"'
    assert all("riformer" not in package.install_command for package in PACKAGES.values())


def test_versions_of_distributions_are_those_that_the_standard_library_reads() -> None:
    names = {found.name for found in importlib.metadata.distributions()}
    assert len(names) > 20
    for name in names:
        assert distribution_version(name) == importlib.metadata.version(name)
    assert distribution_version("no-such-distribution") is None


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("METADATA", "Metadata-Version: 2.1\nName: odd\nVersion: 1.5\n\nVersion: 9.9\n"),
        ("METADATA", "Name: odd\r\nVersion: 1.5\r\n"),
        ("PKG-INFO", "Name: odd\nVersion: 1.5\n\nWords.\n"),
    ],
)
def test_the_version_is_that_of_the_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str
) -> None:
    folder = tmp_path / ("odd-1.5.dist-info" if file == "METADATA" else "odd-1.5.egg-info")
    folder.mkdir()
    (folder / file).write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert distribution_version("odd") == "1.5"
