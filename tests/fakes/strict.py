"""Objects that have the members of one flavor of TensorRT and no other, called as pybind11 allows."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from tests.fakes.api import ClassApi, Signature

_NUMBERS = ("SupportsInt", "int")
_SCALARS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "tuple": lambda value: isinstance(value, tuple) and all(isinstance(item, int) for item in value),
    "list": lambda value: isinstance(value, list) and all(isinstance(item, int) for item in value),
    "Dims": lambda value: isinstance(value, tuple | list) and all(isinstance(item, int) for item in value),
    "Buffer": lambda value: isinstance(value, bytes | bytearray | memoryview) or hasattr(value, "__bytes__"),
}


class BoundEnum(enum.Enum):
    """As ``py::enum_``: a number for those who ask, but none by itself."""

    def __int__(self) -> int:
        return int(self.value)


def bound_enum(name: str, members: Sequence[str], *, bits: bool = False) -> Any:
    """An enum of a flavor.

    Args:
        name: Its name.
        members: Their names.
        bits: Whether each is a bit.
    """
    return BoundEnum(name, {member: 1 << i if bits else i for i, member in enumerate(members)})  # type: ignore[call-arg]  # members make the class


class BoundType(type):
    """A class of TensorRT: it shows what its objects have."""

    def __getattribute__(cls, name: str) -> Any:
        if not name.startswith("_"):
            api = cls.__dict__.get("_api")
            if api is not None and name not in api.members:
                raise AttributeError(f"{api.flavor}: {api.name} has no {name}")
        return super().__getattribute__(name)


class Bound(metaclass=BoundType):
    """An object of TensorRT: its members are those of the flavor, everything else is private (``_``)."""

    _api: ClassVar[ClassApi]
    _trt: ClassVar[Any]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        cls = type(self)
        signatures = cls._api.members.get("__init__", ())
        if not signatures:
            raise TypeError(f"{cls._api.flavor}: {cls._api.name}: no constructor defined")
        self._init(*_checked(cls, "__init__", signatures, arguments, named))

    @classmethod
    def _made(cls, *arguments: Any) -> Any:
        """One that TensorRT itself makes."""
        made = cls.__new__(cls)
        made._init(*arguments)
        return made

    def _init(self, *arguments: Any) -> None:
        assert not arguments

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        cls = type(self)
        cls._trt.used.add((cls._api.name, name))
        if name not in cls._api.members:
            raise AttributeError(f"{cls._api.flavor}: {cls._api.name} has no {name}")
        try:
            value = object.__getattribute__(self, name)
        except AttributeError as err:
            raise NotImplementedError(f"the fake {cls._api.name} has no {name}") from err
        signatures = cls._api.members[name]
        if not callable(value) or isinstance(value, Bound):
            return value
        assert signatures, f"{cls._api.name}.{name}: its signatures belong in OVERLOADS"
        return lambda *arguments, **named: value(*_checked(cls, name, signatures, arguments, named))

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if not name.startswith("_"):
            cls._trt.used.add((cls._api.name, name))
            if name not in cls._api.members:
                raise AttributeError(f"{cls._api.flavor}: {cls._api.name} has no {name}")
            if not hasattr(cls, name):
                raise NotImplementedError(f"the fake {cls._api.name} has no {name}")
        object.__setattr__(self, name, value)


def _fits(value: Any, annotation: str, trt: Any) -> bool:
    if annotation in _NUMBERS:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation in _SCALARS:
        return _SCALARS[annotation](value)
    expected = getattr(trt, annotation, None)
    if expected is None:
        raise NotImplementedError(f"the fake does not know the type {annotation}")
    return isinstance(value, expected)


def _bind(
    signature: inspect.Signature, trt: Any, arguments: Sequence[Any], named: dict[str, Any]
) -> list[Any] | None:
    try:
        bound = signature.bind(*arguments, **named)
    except TypeError:
        return None
    for name, value in bound.arguments.items():
        parameter = signature.parameters[name]
        if value is None and parameter.default is None:
            continue
        if not _fits(value, parameter.annotation, trt):
            return None
    bound.apply_defaults()
    return list(bound.arguments.values())


def _checked(
    cls: type[Bound],
    name: str,
    signatures: Sequence[Signature],
    arguments: Sequence[Any],
    named: dict[str, Any],
) -> list[Any]:
    """The arguments in order; a TypeError where no signature takes them, as pybind11's."""
    for signature in signatures:
        found = _bind(signature.parameters, cls._trt, arguments, named)
        if found is not None:
            return found
    shown = " or ".join(str(signature.parameters) for signature in signatures)
    raise TypeError(f"{cls._api.flavor}: {cls._api.name}.{name} takes {shown}, got {arguments!r} {named!r}")


def callback(target: Bound, name: str, *arguments: Any) -> Any:
    """Call what a subclass in Python overrides; pybind11 hands over null pointers as None.

    Args:
        target: The subclass's instance.
        name: The function; one of the base's.
        arguments: As many as the base's takes.
    """
    cls = type(target)
    (signature,) = cls._api.members[name]
    signature.parameters.bind(*arguments)
    return object.__getattribute__(target, name)(*arguments)
