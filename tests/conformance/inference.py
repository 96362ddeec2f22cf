"""What expressions of our code are, in terms of TensorRT's classes; see ``usage``."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.api import Api

_OF_ENUMS = ("name", "value")


@dataclass(frozen=True)
class Type:
    """What an expression is.

    Attributes:
        kind: ``trt`` (our TensorRT), ``module``, ``class`` and ``object`` (TensorRT's), ``method``
            (of one of its objects), ``own`` (an instance of our class), ``function`` (ours), ``items``
            (a tuple), ``made`` (a lambda).
        name: Of the class or function.
        member: Of the method.
        parts: Of a tuple, or what a lambda gives.
    """

    kind: str
    name: str = ""
    member: str = ""
    parts: tuple[Type | None, ...] = ()


@dataclass(frozen=True, order=True)
class Use:
    """A member that is used; the class ``module`` is TensorRT's module itself."""

    owner: str
    member: str


@dataclass
class Findings:
    """What came of reading.

    Attributes:
        uses: Every member that is used.
        problems: Members that the flavor lacks, wrong arguments, and names that are made up at run time.
        untyped: Parameters that may be anything, of which nobody says what they are.
    """

    uses: set[Use] = field(default_factory=set)
    problems: set[str] = field(default_factory=set)
    untyped: set[str] = field(default_factory=set)


def joined(first: Type | None, second: Type | None) -> Type | None:
    """The one that is known; tuples part by part."""
    if first is None or second is None or first == second:
        return first or second
    if first.kind == second.kind == "items" and len(first.parts) == len(second.parts):
        parts = tuple(joined(*pair) for pair in zip(first.parts, second.parts, strict=True))
        return Type("items", parts=parts)
    raise TypeError(f"both {first} and {second}")


Env = dict[str, Type | None]
"""What is known of the names in a function."""


class Inference:
    """Expressions of one flavor.

    Args:
        api: The flavor's.
        sources: Text of each file, by name.
    """

    def __init__(self, api: Api, sources: dict[str, str]) -> None:
        self._api = api
        self._trees = {name: ast.parse(text) for name, text in sources.items()}
        self._functions: dict[str, ast.FunctionDef] = {}
        self._own: set[str] = set()
        self._parameters: dict[tuple[str, str], Type] = {}
        self._attributes: dict[tuple[str, str], Type] = {}
        self._results: dict[str, Type] = {}
        self._found = Findings()
        self._where = ""
        for tree in self._trees.values():
            self._collect(tree.body, "")

    def _collect(self, body: Sequence[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef):
                self._functions[prefix + node.name] = node
            elif isinstance(node, ast.ClassDef):
                self._own.add(node.name)
                self._collect(node.body, f"{node.name}.")

    def _capability(self, test: ast.expr, env: Env) -> bool | None:
        """What a ``hasattr`` of something of TensorRT's gives; None for any other test."""
        negated = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        call = test.operand if isinstance(test, ast.UnaryOp) else test
        match call:
            case ast.Call(func=ast.Name(id="hasattr"), args=[value, ast.Constant(value=str(name))]):
                found = self._of(value, env)
                if found is not None and found.kind in ("module", "class", "object"):
                    return self._has(found, name) is not negated
        return None

    def _has(self, owner: Type, name: str) -> bool:
        if owner.kind == "module":
            return name in self._api.classes or name in self._api.enums
        if owner.name in self._api.enums:
            members = self._api.enums[owner.name] if owner.kind == "class" else _OF_ENUMS
            return name in members
        return name in self._api.classes[owner.name].members

    def _assign(self, target: ast.expr, found: Type | None, env: Env) -> None:
        match target:
            case ast.Name(id=name):
                env[name] = found or env.get(name)
            case ast.Tuple(elts=targets):
                parts = found.parts if found is not None and found.kind == "items" else (None,) * len(targets)
                for part, item in zip(targets, parts, strict=False):
                    self._assign(part, item, env)
            case ast.Attribute(value=value, attr=name):
                owner = self._of(value, env)
                if owner is not None and owner.kind == "own":
                    known = joined(self._attributes.get((owner.name, name)), found)
                    if known is not None:
                        self._attributes[owner.name, name] = known
                elif owner is not None:
                    self._member(owner, name)

    def _member(self, owner: Type, name: str) -> Type | None:
        """A member of something of TensorRT's, which is written down."""
        if name.startswith("__"):
            return None
        self._found.uses.add(Use(owner.name or owner.kind, name))
        if not self._has(owner, name):
            said = f"{self._where}: {owner.name or 'the module'} of {self._api.flavor} has no {name}"
            self._found.problems.add(said)
            return None
        if owner.kind == "module":
            return Type("class", name)
        if owner.name in self._api.enums:
            return Type("object", owner.name) if owner.kind == "class" else None
        api = self._api.classes[owner.name]
        if api.members[name]:
            return Type("method", owner.name, name)
        return self._known(api.result(name))

    def _known(self, name: str | None) -> Type | None:
        known = name is not None and (name in self._api.classes or name in self._api.enums)
        return Type("object", name or "") if known else None

    def _bind(self, method: Type, arguments: Sequence[Any], named: Iterable[str]) -> None:
        for signature in self._api.classes[method.name].members[method.member]:
            try:
                signature.parameters.bind(*arguments, **dict.fromkeys(named))
            except TypeError:
                continue
            return
        said = f"{self._where}: {method.name}.{method.member} of {self._api.flavor} takes other arguments"
        self._found.problems.add(said)

    def _of(self, node: ast.expr, env: Env) -> Type | None:
        """What an expression is."""
        kinds: dict[type[ast.expr], Callable[[Any, Env], Type | None]] = {
            ast.Name: self._of_name,
            ast.Attribute: lambda item, env: self._attribute(self._of(item.value, env), item.attr),
            ast.Call: self._call,
            ast.Lambda: lambda item, env: Type("made", parts=(self._of(item.body, env),)),
            ast.Tuple: lambda item, env: Type("items", parts=tuple(self._of(e, env) for e in item.elts)),
            ast.IfExp: self._of_choice,
            ast.NamedExpr: self._of_named,
        }
        return kinds.get(type(node), self._inside)(node, env)

    def _of_name(self, node: ast.Name, env: Env) -> Type | None:
        if node.id in self._functions or node.id in self._own:
            return env.get(node.id) or Type("function", node.id)
        return env.get(node.id)

    def _of_choice(self, node: ast.IfExp, env: Env) -> Type | None:
        has = self._capability(node.test, env)
        if has is not None:
            return self._of(node.body if has else node.orelse, env)
        self._of(node.test, env)
        first, second = self._of(node.body, env), self._of(node.orelse, env)
        return first or second

    def _of_named(self, node: ast.NamedExpr, env: Env) -> Type | None:
        found = self._of(node.value, env)
        self._assign(node.target, found, env)
        return found

    def _inside(self, node: ast.AST, env: Env) -> Type | None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self._of(child, env)
            elif isinstance(child, ast.comprehension | ast.keyword):
                self._inside(child, env)
        return None

    def _attribute(self, owner: Type | None, name: str) -> Type | None:
        match owner:
            case Type(kind="trt"):
                return Type("module") if name == "module" else None
            case Type(kind="module" | "class" | "object"):
                return self._member(owner, name)
            case Type(kind="own"):
                if f"{owner.name}.{name}" in self._functions:
                    return Type("function", f"{owner.name}.{name}")
                if name == "_trt":
                    return Type("trt")
                return self._attributes.get((owner.name, name))
        return None

    def _call(self, node: ast.Call, env: Env) -> Type | None:
        called = self._of(node.func, env)
        given = [self._of(item.value if isinstance(item, ast.Starred) else item, env) for item in node.args]
        named = {item.arg: self._of(item.value, env) for item in node.keywords}
        starred = any(isinstance(item, ast.Starred) for item in node.args) or None in named
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and given[0] is not None:
            self._found.problems.add(f"{self._where}: a name of {given[0]} is made up at run time")
        if called is None:
            return None
        match called.kind:
            case "class":
                init = self._api.classes.get(called.name)
                if init is not None and init.members.get("__init__") and not starred:
                    self._bind(Type("method", called.name, "__init__"), given, filter(None, named))
                return Type("object", called.name)
            case "method":
                if not starred:
                    self._bind(called, given, filter(None, named))
                return self._known(self._api.classes[called.name].result(called.member))
            case "function":
                return self._call_own(called.name, given, named)
        return None

    def _call_own(
        self, name: str, given: Sequence[Type | None], named: dict[str | None, Type | None]
    ) -> Type | None:
        if name == "started" and given[0] is not None:
            return Type("object", given[0].name)  # generic: an object of the class that it was given
        if name == "interruptible" and given[0] is not None:
            return given[0].parts[0]
        function = f"{name}.__init__" if name in self._own else name
        if function in self._functions:
            names = [item.arg for item in self._functions[function].args.args]
            names = names[1:] if names[:1] == ["self"] else names
            for parameter, found in [*zip(names, given, strict=False), *named.items()]:
                known = joined(self._parameters.get((function, parameter or "")), found)
                if known is not None:
                    self._parameters[function, parameter or ""] = known
        return Type("own", name) if name in self._own else self._results.get(name)
