"""What TensorRT's Python bindings offer, as ``tests/data/trt-api/*.json`` lists it.

The files were made from the real bindings; ``tests/unit/trt/test_real_bindings.py`` compares both.
A member is a signature as pybind11 writes it, or ``property`` for anything else: attributes, and
functions of several signatures, of which :data:`OVERLOADS` holds the ones that are called.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "trt-api"
FLAVORS = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))
"""``tensorrt-10.16``, ``tensorrt-11.4`` and ``tensorrt_rtx-1.7``."""

OVERLOADS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("Runtime", "deserialize_cuda_engine"): (
        "deserialize_cuda_engine(self: Runtime, serialized_engine: typing_extensions.Buffer) -> ICudaEngine",
    ),
    ("ICudaEngine", "create_execution_context"): (
        "create_execution_context(self: ICudaEngine, strategy: ExecutionContextAllocationStrategy"
        " = <ExecutionContextAllocationStrategy.STATIC: 0>) -> IExecutionContext",
        "create_execution_context(self: ICudaEngine, runtime_config: IRuntimeConfig = None)"
        " -> IExecutionContext",
    ),
    ("IExecutionContext", "set_input_shape"): (
        "set_input_shape(self: IExecutionContext, name: str, shape: tuple) -> bool",
        "set_input_shape(self: IExecutionContext, name: str, shape: list) -> bool",
    ),
    ("Builder", "build_serialized_network"): (
        "build_serialized_network(self: Builder, network: INetworkDefinition, config: IBuilderConfig)"
        " -> IHostMemory",
    ),
}
"""Functions of several signatures: those that count."""

UNLISTED: Mapping[str, Mapping[str, str]] = {
    "EngineInspector": {
        "get_engine_information": "get_engine_information(self: EngineInspector,"
        " format: LayerInformationFormat) -> str",
    },
}
"""Classes that the files lack."""

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")
"""Members of ``ILogger.Severity``, by rising number."""

PROPERTIES: Mapping[tuple[str, str], str] = {("ITensor", "dtype"): "DataType"}
"""Classes of attributes, which the files do not tell."""


def _split(text: str) -> Iterator[str]:
    """Parts between the commas that are outside brackets."""
    depth, part = 0, ""
    for character in text:
        depth += (character in "[(<") - (character in "])>")
        if character == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += character
    if part.strip():
        yield part.strip()


def plain(name: str) -> str:
    """A type without its namespaces; the parser's error has another name in Python."""
    short = re.split(r"\.|::", name.strip())[-1]
    return "ParserError" if short == "IParserError" else short


@dataclass(frozen=True)
class Signature:
    """One way of calling a function."""

    parameters: inspect.Signature
    returns: str

    @classmethod
    def parse(cls, text: str) -> Signature:
        """Read what pybind11 writes; ``self`` is left out."""
        match = re.fullmatch(r"\w+\((.*)\)(?: -> (.*))?", text.strip(), re.DOTALL)
        assert match is not None, text
        parameters: list[inspect.Parameter] = []
        optional = False  # one function has a parameter without a default behind one with
        for part in _split(match[1]):
            declared, equals, _ = part.partition(" = ")
            optional = optional or bool(equals)
            name, _, annotation = declared.partition(": ")
            if name == "self":
                continue
            parameters.append(
                inspect.Parameter(
                    name,
                    inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    annotation=plain(annotation),
                    default=None if optional else inspect.Parameter.empty,
                )
            )
        return cls(parameters=inspect.Signature(parameters), returns=plain(match[2] or "None"))


@dataclass(frozen=True)
class ClassApi:
    """A class: its members with their signatures; none for attributes."""

    flavor: str
    name: str
    members: Mapping[str, tuple[Signature, ...]]

    def result(self, member: str) -> str | None:
        """Name of the class that a function or attribute gives, where it is known."""
        signatures = self.members[member]
        return signatures[0].returns if signatures else PROPERTIES.get((self.name, member))


@dataclass(frozen=True)
class Api:
    """One flavor."""

    flavor: str
    version: str
    classes: Mapping[str, ClassApi]
    enums: Mapping[str, tuple[str, ...]]

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX."""
        return "rtx" in self.flavor


def _members(name: str, listed: Mapping[str, str]) -> dict[str, tuple[Signature, ...]]:
    texts = {
        member: OVERLOADS.get((name, member), ()) if text == "property" else (text,)
        for member, text in listed.items()
    }
    return {member: tuple(map(Signature.parse, signatures)) for member, signatures in texts.items()}


@functools.cache
def api_of(flavor: str) -> Api:
    """What a flavor offers.

    Args:
        flavor: One of :data:`FLAVORS`.
    """
    stored = json.loads((FOLDER / f"{flavor}.json").read_text(encoding="utf-8"))
    listed = {**UNLISTED, **stored["classes"]}
    enums = {name: tuple(members["enum"]) for name, members in listed.items() if "enum" in members}
    classes = {
        name: ClassApi(flavor=flavor, name=name, members=_members(name, members))
        for name, members in listed.items()
        if name not in enums
    }
    return Api(flavor=flavor, version=stored["version"], classes=classes, enums=enums)
