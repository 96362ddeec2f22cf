"""What the statements of one mmengine config file assign, read from its syntax tree; nothing is executed.

Literals, ``dict(...)``, names, items, attributes, slices and plain arithmetic are understood, as statements
assignments, ``update``, ``merge``, ``append`` and ``extend``. Whatever else touches a value makes it
:data:`~riformer_deploy.checkpoints.config_values.UNREAD`, everywhere it can be seen from, so that no value is taken for what the file does not say.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from riformer_deploy.checkpoints.config_values import UNREAD, Budget, containers, is_key, merged, update


class _Imported(str):
    """The full path of an imported class or module."""

    __slots__ = ()


_ENDLESS = 1e30
_LONGEST = 10_000
_PURE = frozenset({"abs", "float", "int", "len", "list", "max", "min", "range", "round", "sorted", "sum"})
_NUMERIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


@dataclass
class Namespace:
    """The names of one file.

    Attributes:
        names: Their values: literals, lists and dictionaries of these, or :data:`UNREAD`.
        base: What ``_base_.name`` means: the names of the files that this one builds on.
        imported: Full paths of imported classes and modules, by the names that the file gives them.
        budget: Bounds the work; ValueError is raised where it is spent.
    """

    names: dict[str, Any] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)

    def run(self, statement: ast.stmt) -> None:
        """Follow one statement."""
        match statement:
            case ast.Assign(targets=targets, value=value):
                self._spoil(self._passed(value))
                result = self.value(value)
                for target in targets:
                    self._assign(target, result)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._spoil(self._passed(value))
                self._assign(target, self.value(value))
            case ast.Import(names=names):
                for item in names:
                    self.imported[item.asname or item.name.partition(".")[0]] = (
                        item.name if item.asname else item.name.partition(".")[0]
                    )
            case ast.ImportFrom(module=str() as module, names=names):
                self.imported |= {item.asname or item.name: f"{module}.{item.name}" for item in names}
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=owner, attr=method)) as call):
                if not self._changed_by(owner, method, call):
                    self._spoil(statement)
            case _:
                self._spoil(statement)

    def _changed_by(self, owner: ast.expr, method: str, call: ast.Call) -> bool:
        """Whether a method call on a known value was understood and done."""
        target = self.value(owner)
        given = [self.value(item) for item in call.args]
        words = {word.arg: self.value(word.value) for word in call.keywords if word.arg}
        if len(words) != len(call.keywords) or any(item is UNREAD for item in given):
            return False
        match method, target, given:
            case "update", dict(), [] | [dict()]:
                update(target, {**(given[0] if given else {}), **words}, self.budget)
            case "merge", dict(), [dict(new)] if not words:
                result = merged({"all": new}, {"all": target}, self.budget)["all"]
                target.clear()
                target.update(result)
            case "append", list(), [value] if not words:
                target.append(value)
            case "extend", list(), [list(values)] if not words:
                self.budget.spend(len(values))
                target.extend(values)
            case _:
                return False
        return True

    def _assign(self, target: ast.expr, value: Any) -> None:
        place: Any = None
        match target:
            case ast.Name(id=name):
                self.imported.pop(name, None)
                self.names[name] = value
                return
            case ast.Attribute(value=owner, attr=place):
                pass
            case ast.Subscript(value=owner, slice=ast.Constant(value=place)):
                pass
            case _:
                self._spoil(target)
                return
        holder = self.value(owner)
        inside = isinstance(holder, list) and type(place) is int and -len(holder) <= place < len(holder)
        if inside or (isinstance(holder, dict) and isinstance(place, (str, int))):
            holder[place] = value
        else:
            self._spoil(target)

    def value(self, node: ast.expr) -> Any:  # noqa: C901, PLR0912  # one case for each kind of expression
        """The value that an expression spells, or :data:`UNREAD`; lists and dictionaries are not copied."""
        result: Any = UNREAD
        match node:
            case ast.Constant(value=str() as text) if "{{" in text:
                pass  # mmengine puts a path or a variable of the environment there
            case ast.Constant(value=None | bool() | int() | float() | str() as literal):
                result = literal
            case ast.List(elts=items) | ast.Tuple(elts=items):
                result = [self.value(item) for item in items]
            case ast.Dict(keys=keys, values=values):
                result = self._dictionary(keys, values)
            case ast.Call(func=ast.Name(id="dict"), args=[], keywords=words):
                keys = [None if word.arg is None else ast.Constant(value=word.arg) for word in words]
                result = self._dictionary(keys, [word.value for word in words])
            case (
                ast.Call(func=ast.Attribute(attr="deepcopy"), args=[copied], keywords=[])
                | ast.Call(func=ast.Name(id="deepcopy"), args=[copied], keywords=[])
            ):
                result = self.budget.copied(self.value(copied))
            case ast.Set(elts=[ast.Set(elts=[ast.Attribute() as reference])]):  # {{_base_.name}}
                result = self.budget.copied(self.value(reference))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                number = self.value(operand)
                result = -number if _is_number(number) else UNREAD
            case ast.BinOp(left=left, op=kind, right=right):
                self.budget.spend(1)
                result = _computed(self.value(left), kind, self.value(right))
                self.budget.spend(len(result) if isinstance(result, (str, list)) else 0)
            case ast.Name(id=name):
                result = self.names.get(
                    name, _Imported(self.imported[name]) if name in self.imported else UNREAD
                )
            case ast.Attribute(value=owner, attr=key):
                result = self._attribute(owner, key)
            case ast.Subscript(value=owner, slice=part):
                result = self._item(self.value(owner), part)
            case _:
                pass
        return result

    def _dictionary(self, keys: list[Any], values: list[ast.expr]) -> Any:
        result: dict[Any, Any] = {}
        for key, node in zip(keys, values, strict=True):
            value = self.value(node)
            if key is None:  # **other
                if not isinstance(value, dict):
                    return UNREAD
                self.budget.spend(len(value))
                result |= value
            elif isinstance(key, ast.Constant) and is_key(key.value):
                result[key.value] = value
            else:
                return UNREAD
        return result

    def _attribute(self, owner: ast.expr, key: str) -> Any:
        if isinstance(owner, ast.Name) and owner.id == "_base_" and "_base_" not in self.names:
            return self.base.get(key, UNREAD)
        held = self.value(owner)
        if isinstance(held, _Imported):
            return _Imported(f"{held}.{key}")
        return held.get(key, UNREAD) if isinstance(held, dict) else UNREAD

    def _item(self, held: Any, part: ast.expr) -> Any:
        if isinstance(part, ast.Slice) and isinstance(held, list):
            edges = [
                None if edge is None else self.value(edge) for edge in (part.lower, part.upper, part.step)
            ]
            self.budget.spend(len(held))
            return held[slice(*edges)] if all(e is None or (type(e) is int and e) for e in edges) else UNREAD
        key = UNREAD if isinstance(part, ast.Slice) else self.value(part)
        if isinstance(held, dict) and isinstance(key, (str, int)):
            return held.get(key, UNREAD)
        if isinstance(held, list) and type(key) is int and -len(held) <= key < len(held):
            return held[key]
        return UNREAD

    @staticmethod
    def _passed(node: ast.expr) -> ast.AST:
        """The calls within an expression that may change what they are given."""
        kept = [
            call
            for call in ast.walk(node)
            if isinstance(call, ast.Call)
            and not (isinstance(call.func, ast.Name) and call.func.id in {"dict", "deepcopy", *_PURE})
            and not (isinstance(call.func, ast.Attribute) and call.func.attr == "deepcopy")
        ]
        return ast.Tuple(elts=list(kept), ctx=ast.Load())

    def _spoil(self, node: ast.AST) -> None:
        """Make everything that a statement touches, and whatever shares a part with it, unread."""
        touched = [item for item in ast.walk(node) if isinstance(item, ast.Name)]
        for item in touched:
            if item.id == "_base_":
                self.base = dict.fromkeys(self.base, UNREAD)
        found = {item.id for item in touched if item.id in self.names or isinstance(item.ctx, ast.Store)}
        shared = {id(part) for name in found for part in self._looked_at(self.names.get(name))}
        for name, value in self.names.items():
            if name in found or any(id(part) in shared for part in self._looked_at(value)):
                found.add(name)
        self.names |= dict.fromkeys(found, UNREAD)

    def _looked_at(self, value: Any) -> Iterator[Any]:
        for part in containers(value):
            self.budget.spend(1 + len(part))
            yield part


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _ENDLESS


def _computed(left: Any, kind: ast.operator, right: Any) -> Any:
    operation = _NUMERIC.get(type(kind))
    if operation is not None and _is_number(left) and _is_number(right):
        divides = isinstance(kind, (ast.Div, ast.FloorDiv))
        return UNREAD if divides and right == 0 else operation(left, right)
    if isinstance(kind, ast.Add):
        if isinstance(left, str) and isinstance(right, str) and len(left) + len(right) < _LONGEST:
            return left + right
        if isinstance(left, list) and isinstance(right, list) and len(left) + len(right) < _LONGEST:
            return left + right
    return UNREAD
