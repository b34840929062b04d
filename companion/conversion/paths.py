"""What of a module the expressions of its methods reach."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from typing import Literal, NamedTuple

__all__ = ["NOTHING", "Part", "Paths"]


class Part(NamedTuple):
    """What the module is that a method calls.

    Parameters
    ----------
    kind
        ``"norm"``, to be put together with what follows; ``"tail"``, a sequence that ends in one;
        ``"relu"``; ``"identity"``; ``"fresh"``, a layer whose output nothing else can hold;
        ``"pure"``, a module that changes no tensor in place; ``"module"``, any other
    name
        as reasons call it
    """

    kind: Literal["norm", "tail", "relu", "identity", "fresh", "pure", "module"]
    name: str


NOTHING = Part("module", "NoneType")


class Paths:
    """Paths of a method's expressions, from ``self`` on.

    ``"a.b"`` stands for ``self.a.b``, ``"a.0"`` for ``self.a[0]``, and ``"a.*"`` for ``self.a[i]``
    or the variable of a loop over ``self.a``.

    Parameters
    ----------
    definition
        of the method
    """

    def __init__(self, definition: ast.FunctionDef) -> None:
        arguments = (*definition.args.posonlyargs, *definition.args.args)
        self.me = arguments[0].arg if arguments else ""
        self._loops: dict[str, str] = {}
        nodes = list(ast.walk(definition))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        writes = Counter(name.id for name in names if not isinstance(name.ctx, ast.Load))
        writes.update(node.arg for node in nodes if isinstance(node, ast.arg))
        for node in nodes:
            if isinstance(node, ast.For | ast.comprehension):
                for name, path in self._elements(node.target, node.iter):
                    if writes[name] == 1:
                        self._loops[name] = path

    def of(self, node: ast.AST) -> str | None:
        """The path of an expression; None of one that does not begin at ``self``."""
        parts: list[str] = []
        while True:
            match node:
                case ast.Attribute(value=value, attr=name):
                    parts.append(name)
                case ast.Subscript(value=value, slice=ast.Constant(value=int() | str() as key)):
                    parts.append(str(key))
                case ast.Subscript(value=value):
                    parts.append("*")
                case ast.Name(id=name):
                    loop = self._loops.get(name)
                    if (name != self.me or not parts) and loop is None:
                        return None
                    return ".".join([*([loop] if loop else []), *reversed(parts)])
                case _:
                    return None
            node = value

    def _elements(self, target: ast.AST, values: ast.AST) -> Iterator[tuple[str, str]]:
        """The variables of a loop, and what they go through."""
        match target, values:
            case ast.Tuple(elts=targets), ast.Call(func=ast.Name(id="zip"), args=lists):
                for one, several in zip(targets, lists, strict=False):
                    yield from self._elements(one, several)
            case ast.Tuple(elts=[_, one]), ast.Call(func=ast.Name(id="enumerate"), args=[several]):
                yield from self._elements(one, several)
            case _, ast.Subscript(value=several, slice=ast.Slice()):
                yield from self._elements(target, several)
            case ast.Name(id=name), _ if (path := self.of(values)) is not None:
                yield name, f"{path}.*"
