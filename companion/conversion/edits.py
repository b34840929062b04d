"""Calls of functions in the place of normalizations, sums and ReLUs."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["HELPERS", "edited"]

HELPERS = tuple(f"_companion_{name}" for name in ("norm", "add", "iadd", "act", "settle"))
"""The functions that the new code calls: ``norm(layer, x)``; ``add(left, right)``, and the same in
place; ``act(activation, value, ...)``, which may be given a method's name; ``settle(value)``."""

_NORM, _ADD, _IADD, _ACT, _SETTLE = HELPERS


def edited(
    definition: ast.FunctionDef,
    edits: Mapping[ast.AST, str],
    settled: Mapping[ast.AST, Iterable[str]],
) -> ast.FunctionDef:
    """Change nodes of a definition.

    Parameters
    ----------
    definition
        a function's, which is changed
    edits
        what becomes of which node: ``"norm"``, ``"add"``, ``"iadd"`` and ``"act"`` are calls of
        functions; ``"assign"`` keeps the result of a statement that changes a tensor in place
    settled
        before which statement a variable is settled
    """
    changed: ast.FunctionDef = _Rewriter(edits, settled).visit(definition)
    return ast.fix_missing_locations(changed)


class _Rewriter(ast.NodeTransformer):
    """Put the functions where chains are."""

    def __init__(
        self, edits: Mapping[ast.AST, str], settled: Mapping[ast.AST, Iterable[str]]
    ) -> None:
        self.edits, self.settled = edits, settled

    def visit(self, node: ast.AST) -> Any:
        """Change a node, and say what stands before it."""
        before = [
            _assign(name, _call(_SETTLE, node, [ast.Name(name, ast.Load())]))
            for name in sorted(self.settled.get(node, ()))
        ]
        changed = self.changed(node)
        return [*before, changed] if before else changed

    def changed(self, node: ast.AST) -> Any:
        """Change what is inside first, then the node."""
        edit = self.edits.get(node)
        former: Any = node
        variable = former.value.func.value.id if edit == "assign" else ""
        changed: Any = self.generic_visit(node)
        if edit == "norm":
            return _call(_NORM, node, [changed.func, *changed.args])
        if edit in ("add", "iadd"):
            return self.sum(changed, _ADD if edit == "add" else _IADD)
        if edit == "assign":
            return _assign(variable, changed.value)
        if edit == "act":
            return _call(_ACT, node, self.activation(changed), changed.keywords)
        return changed

    def sum(self, node: Any, helper: str) -> ast.AST:
        """The sum of two, of which one may be a normalization put off."""
        if isinstance(node, ast.AugAssign):
            name = vars(node.target)["id"]
            value = _call(helper, node, [ast.Name(name, ast.Load()), node.value])
            return _assign(name, value)
        if isinstance(node, ast.BinOp):
            return _call(helper, node, [node.left, node.right])
        if len(node.args) == 2:
            return _call(helper, node, node.args)
        return _call(helper, node, [node.func.value, *node.args])

    def activation(self, node: ast.Call) -> list[ast.expr]:
        """The function that is called, and its arguments."""
        if node.args:
            return [node.func, *node.args]
        method: Any = node.func
        return [ast.Constant(method.attr), method.value]


def _assign(name: str, value: ast.expr) -> ast.Assign:
    return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), value)


def _call(
    name: str, at: ast.AST, args: list[ast.expr], keywords: list[ast.keyword] | None = None
) -> ast.Call:
    return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), args, keywords or []), at)
