"""The real bindings of every flavor against what we took from them, and against what our code uses.

TensorRT's wheels hold bindings without the libraries, which only come from NVIDIA; stubs of the nine
functions that they are linked to are enough to import them. ``make test`` fetches the wheels.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance import probe
from tests.conformance.usage import Reader, sources_of
from tests.fakes.api import FLAVORS, FOLDER, OVERLOADS, PROPERTIES, SEVERITIES, UNLISTED, api_of

WHEELS = Path(sys.prefix) / "trt-bindings"
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
STUBS = """
#define STUB(name) void *name(void) { return 0; }
STUB(createInferBuilder_INTERNAL)
STUB(createInferRefitter_INTERNAL)
STUB(createInferRuntime_INTERNAL)
STUB(createNvOnnxParser_INTERNAL)
STUB(createNvOnnxParserRefitter_INTERNAL)
STUB(getBuilderPluginRegistry)
STUB(getPluginRegistry)
STUB(getNvOnnxParserVersion)
STUB(initLibNvInferPlugins)
"""
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")


def _listed(flavor: str) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((FOLDER / f"{flavor}.json").read_text(encoding="utf-8"))
    return stored


def _stubbed(folder: Path, version: str) -> dict[str, str]:
    """Unpack the wheel of a version beside libraries to import it with; the environment that does."""
    wheels = sorted(WHEELS.glob(f"*_bindings-{version}-{PYTHON}-*.whl"))
    if not wheels:
        pytest.skip(f"no wheel of tensorrt-cu13-bindings {version} for {PYTHON} in {WHEELS} (see Makefile)")
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to make stubs of TensorRT's libraries with")
    with zipfile.ZipFile(wheels[-1]) as archive:
        archive.extractall(folder)  # NVIDIA's wheel, as pip would
    source = folder / "stubs.c"
    source.write_text(STUBS, encoding="utf-8")
    for library in LIBRARIES:
        name = f"{library}.so.{version.partition('.')[0]}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True)  # noqa: S603
    return {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder)}


def _probed(module: str, environment: Mapping[str, str]) -> dict[str, Any]:
    command = [sys.executable, probe.__file__, module]
    ran = subprocess.run(  # noqa: S603
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture(scope="module", params=FLAVORS)
def flavor(request: pytest.FixtureRequest) -> str:
    """Each flavor."""
    return str(request.param)


@pytest.fixture(scope="module")
def real(flavor: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the real bindings of the flavor offer."""
    if "rtx" in flavor:
        pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra rtx)")
        return _probed("tensorrt_rtx", {})
    environment = _stubbed(tmp_path_factory.mktemp(flavor), _listed(flavor)["version"])
    return _probed("tensorrt_bindings", environment)


def _plain(text: str) -> str:
    """Without namespaces: the module's own is another in each flavor."""
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", text)


def _signatures(text: str) -> list[str]:
    """The signatures in a docstring of pybind11's."""
    lines = [line.strip() for line in text.splitlines()]
    return [_plain(re.sub(r"^\d+\. ", "", line)) for line in lines if " -> " in line and "(self: " in line]


def test_the_version_is_the_listed_one(flavor: str, real: dict[str, Any]) -> None:
    assert real["version"] == _listed(flavor)["version"]


def test_every_listed_class_has_exactly_the_listed_members_and_signatures(
    flavor: str, real: dict[str, Any]
) -> None:
    differing = []
    for name, members in _listed(flavor)["classes"].items():
        found = real["classes"][name]
        if "enum" in members:
            differing += [] if sorted(found["enum"]) == members["enum"] else [name]
            continue
        assert members.keys() - found.keys() == set(), name
        differing += [f"{name}.{extra}" for extra in found.keys() - members.keys() - {"__init__"}]
        for member, text in members.items():
            same = text == "property" or _plain(text) in _signatures(found[member])
            differing += [] if same else [f"{name}.{member}: {found[member]}"]
    assert not differing


def test_every_member_that_our_code_uses_is_in_the_real_bindings(
    flavor: str, real: dict[str, Any], repository: Path
) -> None:
    uses = Reader(api_of(flavor), sources_of(repository / "riformer_deploy" / "trt")).read().uses
    classes = real["classes"]
    enums = {name: [*found["enum"], "name", "value"] for name, found in classes.items() if "enum" in found}
    missing = [
        use
        for use in uses
        if use.member not in (classes if use.owner == "module" else enums.get(use.owner, classes[use.owner]))
    ]
    assert not missing
    assert len(uses) > 70


def test_signatures_that_we_wrote_down_ourselves_are_the_real_ones(flavor: str, real: dict[str, Any]) -> None:
    ours = [(name, member, text) for (name, member), texts in OVERLOADS.items() for text in texts]
    ours += [(name, member, text) for name, members in UNLISTED.items() for member, text in members.items()]
    for name, member, text in ours:
        assert _plain(text) in _signatures(real["classes"][name][member]), f"{flavor}: {name}.{member}"
    for (name, member), result in PROPERTIES.items():
        assert _plain(real["classes"][name][member]).strip().endswith(f"-> {result}")
    assert tuple(real["severities"]) == SEVERITIES


def test_a_null_pointer_from_tensorrt_is_the_type_error_that_we_look_for(
    flavor: str, real: dict[str, Any]
) -> None:
    starts_without_gpu = "rtx" in flavor
    assert real["null pointers"].keys() == (set() if starts_without_gpu else {"Builder", "Runtime"})
    assert all("nullptr" in text for text in real["null pointers"].values())


def test_the_wheels_that_are_fetched_are_those_of_the_listed_versions(repository: Path) -> None:
    (line,) = re.findall(r"^TRT_BINDINGS \?= (.*)$", (repository / "Makefile").read_text(), re.MULTILINE)
    assert line.split() == [_listed(flavor)["version"] for flavor in FLAVORS if "rtx" not in flavor]
