"""Allow-lists of settings: which values are computed here, which settings cannot matter, and nothing else."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

SCOPES = ("mmpretrain", "mmcls")
"""Scopes of the registries that hold RIFormer."""

_SHARED = ("mmcv", "mmengine", "torch")
"""Roots of the layers that every registry falls back to."""

_ENDLESS = 1e30

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxstring, _SHORT.maxother = 3, 8, 8, 80, 80


@dataclass(frozen=True, kw_only=True)
class Irrelevant:
    """A setting that cannot change what the exported network computes, whatever its value.

    Attributes:
        why: The reason.
    """

    why: str


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A setting of which some values are computed.

    Attributes:
        test: Whether a value is one of them.
        computed: What is computed here, for a person.
        required: Whether the setting must be stored, since mmpretrain's own default is another value.
    """

    test: Callable[[Any], bool]
    computed: str
    required: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassName:
    """The ``type`` of a group: a registered name, alone or scoped, or a dotted path to the class.

    Attributes:
        names: Accepted classes, without scope or path.
        shared: Whether the class is found under any default scope, as mmcv's layers are.
        required: Whether it must be stored.
    """

    names: tuple[str, ...]
    shared: bool = False
    required: bool = True


@dataclass(frozen=True, kw_only=True)
class Group:
    """A dictionary of settings.

    Attributes:
        settings: By name; a name that is not here is refused.
        computed: What is computed here, for a person.
        required: Whether it must be stored.
        shorthand: What may be stored in the dictionary's place.
    """

    settings: Mapping[str, Setting]
    computed: str
    required: bool = False
    shorthand: Callable[[Any], bool] = field(default=lambda _: False)


Setting = Irrelevant | Accepted | ClassName | Group


def is_number(value: Any) -> bool:
    """Whether a literal is a finite number that a network may hold: a file may spell any other."""
    return type(value) in (int, float) and abs(value) < _ENDLESS


def shown(value: Any) -> str:
    """A stored value for a message: short, however deep, long or self-repeating it is."""
    if isinstance(value, int) and abs(value) >= _ENDLESS:
        return "a number of too many digits"  # Python refuses to spell those
    return _SHORT.repr(value)


def refusals(found: Any, setting: Setting, *, name: str, scope: str | None) -> list[str]:
    """What of a stored setting, and of all within it, is not computed here.

    Args:
        found: The stored value, of literals alone.
        setting: What is computed.
        name: The setting's, in full.
        scope: mmengine's default scope, under which names without a scope of their own are looked up.

    Returns:
        A sentence for each, with what was found and what is computed.
    """
    match setting:
        case Irrelevant():
            fits = True
        case Accepted(test=test):
            fits = test(found)
        case ClassName():
            fits = _is_class(found, setting, scope)
        case Group() if isinstance(found, dict):
            return _within(found, setting, name=name, scope=scope)
        case Group(shorthand=shorthand):
            fits = shorthand(found)
        case _:
            assert_never(setting)
    return [] if fits else [f"{name} is {shown(found)}; computed here: {_computed(setting)}"]


def _within(found: dict[Any, Any], group: Group, *, name: str, scope: str | None) -> list[str]:
    inner = found.get("_scope_", scope)
    problems = []
    for key, value in found.items():
        setting = group.settings.get(key)
        if setting is None:
            word = key if str(key).isidentifier() else shown(key)
            problems.append(f"{name}.{word} is {shown(value)}; this toolkit does not know that setting")
        else:
            problems += refusals(value, setting, name=f"{name}.{key}", scope=inner)
    return problems + [
        f"{name}.{key} is not stored; computed here: {_computed(setting)}"
        for key, setting in group.settings.items()
        if key not in found and not isinstance(setting, Irrelevant) and setting.required
    ]


def _is_class(found: Any, setting: ClassName, scope: str | None) -> bool:
    if not isinstance(found, str):
        return False
    path, _, last = found.rpartition(".")
    root = path.partition(".")[0]
    if last not in setting.names:
        return False
    if not root:  # a registry of another scope would look among its own classes first
        return setting.shared or scope in (None, "mmengine", *SCOPES)
    return root in SCOPES or (setting.shared and root in _SHARED)


def _computed(setting: Setting) -> str:
    match setting:
        case Irrelevant(why=why):
            return why
        case Accepted(computed=computed) | Group(computed=computed):
            return computed
        case ClassName(names=names):
            return f"mmpretrain's {names[0]}" if not setting.shared else names[0]
        case _:
            assert_never(setting)
