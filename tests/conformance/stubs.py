"""Stub files of what one flavor of TensorRT offers, made from ``tests/data/trt-api``.

``riformer_deploy/trt`` imports the types of TensorRT's objects from ``tensorrt_api``, a module that exists
for type checkers only; this writes it. ``Module`` in it is TensorRT's Python module: it has the classes of
one flavor. Classes that other flavors have can be named in annotations, and are empty.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.fakes.api import FLAVORS, PROPERTIES, SEVERITIES, ClassApi, Signature, api_of

MODULE = "tensorrt_api"
_OTHER = {
    "Buffer": "bytes",
    "Sequence": "typing.Sequence",
    "SupportsFloat": "float",
    "SupportsInt": "int",
    "list": "typing.List",
    "tuple": "typing.Tuple",
    **{name: name for name in ("None", "bool", "bytes", "float", "int", "object", "str")},
}
"""What stands for the types of signatures that are no classes of TensorRT's."""
_DUNDERS = {
    "IHostMemory": "    def __buffer__(self, flags: int, /) -> memoryview: ...",
    "Dims": "    def __iter__(self) -> typing.Iterator[int]: ...",
}
"""Methods that the files lack, as they lack all names with underscores."""
_MAY_FAIL = {
    ("Builder", "build_serialized_network"),
    ("IBuilderConfig", "create_timing_cache"),
    ("ICudaEngine", "create_execution_context"),
    ("IRuntimeCache", "serialize"),
    ("Runtime", "deserialize_cuda_engine"),
}
"""Functions that give None where they fail, which signatures do not say."""
_ABSTRACT = {"ILogger", "IProgressMonitor"}
"""Classes whose methods TensorRT calls: ours must have all of them."""


def write_stub(flavor: str, folder: Path, *, marked: bool) -> None:
    """Write ``tensorrt_api.pyi`` of a flavor.

    Args:
        flavor: One of :data:`~tests.fakes.api.FLAVORS`.
        folder: Where to.
        marked: Make every use of a function or attribute an error that names it, and leave its type as it is.
    """
    api = api_of(flavor)
    here = [*api.enums, *api.classes]
    elsewhere = {name for item in map(api_of, FLAVORS) for name in (*item.enums, *item.classes)} - {*here}
    known = {*here, "Dims", "Severity"}
    lines = ['# mypy: disable-error-code="explicit-any, type-arg"', "import abc", "import typing"]
    for name, members in (*api.enums.items(), ("Severity", SEVERITIES)):
        lines += _enum(name, members)
    for item in (*api.classes.values(), ClassApi(flavor=flavor, name="Dims", members={})):
        lines += _class(item, known, marked=marked)
    lines += [f"class {name}: ..." for name in sorted(elsewhere)]
    lines += [f"_{name} = {name}" for name in sorted(known)]  # members may have the name of a class
    lines += ["class Module:", "    __version__: str", *(f"    {name}: type[_{name}]" for name in here)]
    (folder / f"{MODULE}.pyi").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _enum(name: str, members: Sequence[str]) -> Iterator[str]:
    """As ``py::enum_`` makes it: no ``enum.Enum``."""
    yield f"class {name}:"
    yield from (f"    {member}: typing.ClassVar[_{name}]" for member in members)
    yield f"    __members__: typing.ClassVar[typing.Dict[str, _{name}]]"
    yield "    name: str"
    yield "    value: int"
    yield "    def __int__(self) -> int: ..."


def _class(item: ClassApi, known: set[str], *, marked: bool) -> Iterator[str]:
    this = "self: typing.Never" if marked else "self"
    abstract = item.name in _ABSTRACT
    yield f"class {item.name}{'(metaclass=abc.ABCMeta)' * abstract}:"
    yield _DUNDERS.get(item.name, "    ...")
    for name, signatures in item.members.items():
        if not signatures and name != "__init__":
            kind = _type(PROPERTIES.get((item.name, name), "unknown"), known)
            yield f"    @property\n    def {name}({this}) -> {kind}: ..."
            yield f"    @{name}.setter\n    def {name}({this}, value: {kind}) -> None: ..."
        for signature in signatures:
            first = "self" if name == "__init__" else this
            decorators = "    @typing.overload\n" * (len(signatures) > 1)
            decorators += "    @abc.abstractmethod\n" * (abstract and name != "__init__")
            yield decorators + _function(item.name, name, first, signature, known)


def _function(owner: str, name: str, first: str, signature: Signature, known: set[str]) -> str:
    parameters = [first]
    for item in signature.parameters.parameters.values():
        kind = _type(item.annotation, known)
        kind = "_Dims | typing.Tuple[int, ...]" if kind == "_Dims" else kind  # pybind11 converts
        default = "" if item.default is inspect.Parameter.empty else " = ..."
        parameters.append(f"{item.name}: {kind}{default}")
    result = _type(signature.returns, known) + " | None" * ((owner, name) in _MAY_FAIL)
    return f"    def {name}({', '.join(parameters)}) -> {result}: ..."


def _type(text: str, known: set[str]) -> str:
    """A type of a signature; ``Any`` where the files do not have it."""
    names = {name: f"_{name}" if name in known else _OTHER.get(name, "") for name in re.findall(r"\w+", text)}
    if not all(names.values()):
        return "typing.Any"
    return re.sub(r"\w+", lambda match: names[match[0]], text)
