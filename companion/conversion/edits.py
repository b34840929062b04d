"""Calls of four functions in the place of normalizations, sums and ReLUs."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

__all__ = ["HELPERS", "edited"]

HELPERS = ("_companion_norm", "_companion_add", "_companion_iadd", "_companion_act")
"""The functions that the new code calls: ``norm(layer, x)``, ``add(left, right)``, the same in
place, ``act(activation, value, ...)``; the last may be given a method's name."""

_NORM, _ADD, _IADD, _ACT = HELPERS


def edited(definition: ast.FunctionDef, edits: Mapping[ast.AST, str]) -> ast.FunctionDef:
    """Change nodes of a definition.

    Parameters
    ----------
    definition
        a function's, which is changed
    edits
        what becomes of which node: ``"norm"``, ``"add"``, ``"iadd"`` and ``"act"`` are calls of the
        four functions; ``"assign"`` keeps the result of a statement that changes a tensor in place
    """
    changed: ast.FunctionDef = _Rewriter(edits).visit(definition)
    return ast.fix_missing_locations(changed)


class _Rewriter(ast.NodeTransformer):
    """Put the four functions where chains are."""

    def __init__(self, edits: Mapping[ast.AST, str]) -> None:
        self.edits = edits

    def visit(self, node: ast.AST) -> Any:
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
            target = ast.Name(variable, ast.Store())
            return ast.copy_location(ast.Assign([target], changed.value), node)
        if edit == "act":
            return _call(_ACT, node, self.activation(changed), changed.keywords)
        return changed

    def sum(self, node: Any, helper: str) -> ast.AST:
        """The sum of two, of which one may be a normalization put off."""
        if isinstance(node, ast.AugAssign):
            name = vars(node.target)["id"]
            value = _call(helper, node, [ast.Name(name, ast.Load()), node.value])
            return ast.copy_location(ast.Assign([ast.Name(name, ast.Store())], value), node)
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


def _call(
    name: str, at: ast.AST, args: list[ast.expr], keywords: list[ast.keyword] | None = None
) -> ast.Call:
    return ast.copy_location(ast.Call(ast.Name(name, ast.Load()), args, keywords or []), at)
