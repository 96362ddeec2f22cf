"""Which members of TensorRT some source code uses, found by reading it, for one flavor at a time.

A small type inference: the module is what ``TensorRT.module`` is; from there the signatures of the
bindings say what each call gives, and calls among our own functions carry types from argument to
parameter. What stands behind ``hasattr`` is read for those flavors only that have the name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from tests.conformance.inference import Env, Findings, Inference, Type, joined

_PASSES = 6
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


class Reader(Inference):
    """Reads sources for one flavor."""

    def read(self) -> Findings:
        """Everything; types settle in a few passes."""
        for _ in range(_PASSES):
            self._found = Findings()
            for name, node in self._functions.items():
                self._read_function(name, node)
        return self._found

    def _read_function(self, name: str, node: ast.FunctionDef) -> None:
        owner = name.partition(".")[0] if "." in name else ""
        env: Env = {}
        arguments = [*node.args.args, *node.args.kwonlyargs]
        for argument in arguments:
            env[argument.arg] = self._parameter(name, argument)
            is_any = isinstance(argument.annotation, ast.Name) and argument.annotation.id == "Any"
            if is_any and env[argument.arg] is None:
                self._found.untyped.add(f"{name}({argument.arg})")
        if owner and arguments and arguments[0].arg == "self":
            env["self"] = Type("own", owner)
        self._where = name
        self._block(node.body, env, name)

    def _parameter(self, function: str, argument: ast.arg) -> Type | None:
        annotation = argument.annotation
        if isinstance(annotation, ast.Name):
            if annotation.id == "TensorRT":
                return Type("trt")
            if annotation.id in self._own:
                return Type("own", annotation.id)
        return self._parameters.get((function, argument.arg))

    def _block(self, body: Iterable[ast.stmt], env: Env, function: str) -> bool:
        """Read statements; whether they end the function."""
        return any(self._statement(node, env, function) for node in body)

    def _statement(self, node: ast.stmt, env: Env, function: str) -> bool:
        match node:
            case ast.If():
                return self._if(node, env, function)
            case ast.Return(value=ast.expr() as value):
                found = self._of(value, env)
                if found is not None:
                    self._results[function] = joined(self._results.get(function), found) or found
            case ast.Assign(targets=targets, value=value):
                found = self._of(value, env)
                for target in targets:
                    self._assign(target, found, env)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                self._assign(target, self._of(value, env), env)
            case ast.ClassDef():
                self._nested(node, env)
            case ast.FunctionDef():
                self._block(node.body, dict(env), f"{function}.{node.name}")
            case _:
                self._children(node, env, function)
        return isinstance(node, _ENDS)

    def _if(self, node: ast.If, env: Env, function: str) -> bool:
        has = self._capability(node.test, env)
        if has is not None:
            return self._block(node.body if has else node.orelse, env, function)
        self._of(node.test, env)
        leaves = isinstance(node.body[-1], _ENDS)
        ends = self._block(node.body, dict(env) if leaves else env, function)
        return self._block(node.orelse, env, function) and ends

    def _children(self, node: ast.AST, env: Env, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self._statement(child, env, function)
            elif isinstance(child, ast.expr):
                self._of(child, env)
            else:
                self._children(child, env, function)

    def _nested(self, node: ast.ClassDef, env: Env) -> None:
        """A class of ours that TensorRT calls: it overrides what the base has, with as many arguments."""
        for base in map(lambda item: self._of(item, env), node.bases):  # noqa: C417
            if base is None or base.kind != "class" or base.name not in self._api.classes:
                continue
            for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
                if method.name.startswith("_"):
                    continue
                found = self._member(Type("object", base.name), method.name)
                if found is not None:
                    self._bind(found, [None] * (len(method.args.args) - 1), ())
        for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
            self._block(method.body, dict(env), f"{node.name}.{method.name}")


def sources_of(folder: Path) -> dict[str, str]:
    """Text of each module of a folder.

    Args:
        folder: The package.
    """
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py"))}
