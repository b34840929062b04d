"""Where the code of a method calls a normalization, adds to what it gives, and applies a ReLU.

The three stand inside one another, as in ``relu(self.bn(x) + y)``, or on lines of their own, with a
variable between. What is found is replaced by calls of other functions; all else of the method
stays as it is, so that branches, arguments and attributes keep their effect.
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import NamedTuple

import torch
from torch.nn import functional as F

from .edits import edited
from .paths import NOTHING, Part, Paths

__all__ = ["Rewritten", "called_paths", "rewrite"]

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_SUMS = (operator.add, torch.add, "add", "add_")
_OPERANDS = {"relu": 1, "relu_": 1, "add": 2, "add_": 2, operator.add: 2, torch.add: 2}
_IN_PLACE = ("add_", "relu_")

_NORMS = ("norm", "tail")
_CHANGING = ("module", "relu", "tail")

_EXITS = (ast.Return, ast.Raise, ast.Break, ast.Continue)
_SUSPENDS = (ast.Yield, ast.YieldFrom, ast.Await, ast.AsyncFor, ast.AsyncWith)
# Of these, a part may run never, or often.
_CONDITIONAL = (ast.IfExp, ast.BoolOp, ast.Lambda, ast.NamedExpr)
_REPEATED = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return, ast.Expr)
_ELSEWHERE = "its output is used elsewhere, too"


class Rewritten(NamedTuple):
    """A method whose chains are calls of the functions that :data:`.edits.HELPERS` names.

    Parameters
    ----------
    definition
        the new one, None where there is no chain
    fused
        the paths of the normalizations in it, such as ``"bn1"``; one that ends in ``*`` stands for
        every module of a list
    kept
        reasons, by the path of a normalization that is called where no chain is
    """

    definition: ast.FunctionDef | None
    fused: tuple[str, ...]
    kept: dict[str, str]


class _Refused(Exception):
    """A normalization that is no part of a chain; the text is the reason."""


@dataclass
class _Chain:
    """From a normalization to a ReLU, as far as it has been followed."""

    path: str
    edits: dict[ast.AST, str]
    """What to put in the place of which node."""
    between: list[ast.AST] = field(default_factory=list)
    """What runs after the normalization was called and before the ReLU is."""
    settled: dict[ast.stmt, str] = field(default_factory=dict)
    """Before which statements of a branch the variable's value has to be there."""
    summed: bool = False


def called_paths(definition: ast.FunctionDef) -> set[str]:
    """The :class:`.paths.Paths` of what a method calls."""
    paths = Paths(definition)
    calls = (node.func for node in ast.walk(definition) if isinstance(node, ast.Call))
    return {path for func in calls if (path := paths.of(func)) is not None}


def rewrite(
    function: FunctionType, definition: ast.FunctionDef, parts: Mapping[str, Part]
) -> Rewritten:
    """Find the chains of a method, and put calls of the functions in their place.

    Parameters
    ----------
    function
        the method
    definition
        its source, which is changed
    parts
        what its calls reach, by path; other paths are methods
    """
    method = _Method(function, definition, parts)
    chains: list[_Chain] = []
    kept: dict[str, str] = {}
    for call in method.norm_calls():
        path = method.path(call.func) or ""
        try:
            chains.append(method.follow(call))
        except _Refused as refused:
            kept.setdefault(path, str(refused))
    edits: dict[ast.AST, str] = {}
    settled: dict[ast.AST, set[str]] = {}
    fused = []
    # Of two that meet in one sum, the one that is called last is not put off.
    for chain in sorted(chains, key=lambda chain: len(chain.between)):
        if edits.keys() & chain.edits.keys():
            kept.setdefault(chain.path, "what it is added to is a normalization with that ReLU")
        else:
            edits |= chain.edits
            for statement, name in chain.settled.items():
                settled.setdefault(statement, set()).add(name)
            fused.append(chain.path)
    kept = {path: reason for path, reason in kept.items() if path not in fused}
    if not fused:
        return Rewritten(None, (), kept)
    return Rewritten(edited(definition, edits, settled), tuple(fused), kept)


class _Method:
    """A method's tree, with ways to ask about it."""

    def __init__(
        self, function: FunctionType, definition: ast.FunctionDef, parts: Mapping[str, Part]
    ) -> None:
        self.function, self.definition, self.parts = function, definition, parts
        paths = Paths(definition)
        self.me, self.path = paths.me, paths.of
        self.nodes = list(ast.walk(definition))
        self.parents = {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}
        self.names = [node for node in self.nodes if isinstance(node, ast.Name)]
        self.arguments = [node.arg for node in self.nodes if isinstance(node, ast.arg)]
        self.written = {n.id for n in self.names if not isinstance(n.ctx, ast.Load)}

    def norm_calls(self) -> list[ast.Call]:
        """Calls of normalizations."""
        calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        parts = [self.parts.get(self.path(call.func) or "") for call in calls]
        return [c for c, part in zip(calls, parts, strict=True) if part and part.kind in _NORMS]

    def check(self) -> None:
        """Refuse code whose variables may be seen by more than its own lines."""
        if any(isinstance(node, _SUSPENDS) for node in self.nodes):
            raise _Refused("the code around it is a generator, or asynchronous")
        looks = ("locals", "vars", "eval", "exec")
        if any(isinstance(node, ast.Global | ast.Nonlocal) for node in self.nodes) or any(
            name.id in looks for name in self.names
        ):
            raise _Refused("the code around it shares its variables")
        if self.me in self.written or self.arguments.count(self.me) > 1:
            raise _Refused(f"the code around it assigns to {self.me}")

    def follow(self, call: ast.Call) -> _Chain:
        """The chain that begins with a call; raise where there is none."""
        self.check()
        if len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.Starred):
            raise _Refused("it is called with more than a tensor")
        chain = _Chain(self.path(call.func) or "", {call: "norm"})
        node: ast.expr = call
        while True:
            user = self.user(node)
            done, operands = self.operation(user)
            name = _assigned(user)
            if done in _RELUS and operands[0] is node:
                chain.edits[user] = "act"
                break
            if isinstance(done, Part) and done.kind == "identity" and operands == [node]:
                chain.edits[user] = "act"
                if isinstance(user, ast.expr):
                    node = user
            elif done in _SUMS and not chain.summed and (done != "add_" or operands[0] is node):
                chain.edits[user], chain.summed = "iadd" if done == "add_" else "add", True
                first = isinstance(node, ast.Name) or operands[0] is node
                chain.between += [other for other in operands if other is not node and first]
                outside = self.parents[user]
                if chain.edits.get(outside) == "assign" and isinstance(operands[0], ast.Name):
                    node = self.next_use(outside, operands[0].id, chain)
                elif isinstance(user, ast.expr):
                    node = user
            elif name is not None:
                node = self.next_use(user, name, chain)
            else:
                raise _Refused(self.described(user, done))
        self.check_between(chain, self.is_fresh(call))
        return chain

    def user(self, node: ast.AST) -> ast.AST:
        """What uses a value: its parent, or the call of one of its methods."""
        parent = self.parents[node]
        above = self.parents[parent]
        if isinstance(parent, ast.Attribute) and isinstance(above, ast.Call):
            return above if above.func is parent else parent
        return parent

    def operation(self, node: ast.AST) -> tuple[object, list[ast.expr]]:
        """What an expression does, as far as it matters, and to what.

        That is a function, the name of a tensor's method, a :class:`Part`, or None. The call of a
        module that is a ReLU is the function.
        """
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return operator.add, [node.left, node.right]
        if not isinstance(node, ast.Call) or any(isinstance(a, ast.Starred) for a in node.args):
            return None, []
        path = self.path(node.func)
        done: object
        operands = list(node.args)
        if path is not None:
            done = self.parts.get(path)
            if isinstance(done, Part) and done.kind == "relu" and len(operands) == 1:
                done = F.relu
        elif (function := self.resolved(node.func)) is not None:
            done = next((known for known in (*_RELUS, *_SUMS) if known is function), None)
        elif isinstance(node.func, ast.Attribute):
            done, operands = node.func.attr, [node.func.value, *operands]
        else:
            return None, []
        named = {keyword.arg for keyword in node.keywords}
        fits = _OPERANDS.get(done, len(operands)) == len(operands) > 0
        if not fits or (named and not (done is F.relu and path is None and named == {"inplace"})):
            return None, []
        return done, operands

    def resolved(self, node: ast.AST) -> object:
        """The function that an expression such as ``F.relu`` names now; None for others."""
        match node:
            case ast.Name(id=name) if name not in self.written | set(self.arguments):
                free = self.function.__code__.co_freevars
                if name in free:
                    return None
                return self.function.__globals__.get(name, getattr(builtins, name, None))
            case ast.Attribute(value=value, attr=name):
                owner = self.resolved(value)
                return getattr(owner, name, None) if isinstance(owner, ModuleType) else None
        return None

    def next_use(self, statement: ast.AST, name: str, chain: _Chain) -> ast.expr:
        """The one place that reads what a statement has put into a variable."""
        body, index = self.block(statement)
        for later in body[index + 1 :]:
            uses = _uses(later, name)
            if isinstance(later, ast.If) and not _uses(later.test, name):
                self.pass_by(later, name, chain)
                continue
            if uses:
                break
            if any(isinstance(node, _EXITS) for node in ast.walk(later)):
                raise _Refused("the code may be left before a ReLU")
            chain.between.append(later)
        else:
            raise _Refused("no ReLU follows in the same block of code")
        if isinstance(later, ast.AugAssign) and uses == [later.target]:
            if chain.summed or not isinstance(later.op, ast.Add):
                raise _Refused("more than one sum follows, not a ReLU")
            chain.edits[later], chain.summed = "iadd", True
            chain.between.append(later.value)
            return self.next_use(later, name, chain)
        loads = [node for node in uses if isinstance(node.ctx, ast.Load)]
        if len(loads) != 1 or not isinstance(later, _SIMPLE):
            raise _Refused(_ELSEWHERE)
        self.check_before(loads[0], later, chain)
        done, operands = self.operation(later.value) if isinstance(later, ast.Expr) else (None, [])
        if done in _IN_PLACE and operands[0] is loads[0]:
            chain.edits[later] = "assign"
        elif _assigned(later) != name and not self.dies(later, name):
            raise _Refused(_ELSEWHERE)
        return loads[0]

    def pass_by(self, choice: ast.If, name: str, chain: _Chain) -> None:
        """Note what runs in a branch; one that needs the variable, or is left, gets its value."""
        chain.between.append(choice.test)
        match choice.test:
            case ast.Compare(left=asked, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
                part = self.parts.get(self.path(asked) or "", NOTHING)
                if part.name != NOTHING.name and _uses(choice, name):
                    raise _Refused(f"{part.name} follows, not a ReLU")
        for branch in (choice.body, choice.orelse):
            nodes = [node for statement in branch for node in ast.walk(statement)]
            exits = any(isinstance(node, _EXITS) for node in nodes)
            if exits or any(isinstance(node, ast.Name) and node.id == name for node in nodes):
                chain.settled[branch[0]] = name
            else:
                chain.between += branch

    def block(self, statement: ast.AST) -> tuple[list[ast.stmt], int]:
        """The statements among which one stands, and where."""
        node = statement
        while node is not self.definition:
            node = self.parents[node]
            if isinstance(node, ast.Try | ast.TryStar | ast.ClassDef):
                raise _Refused("it stands in a block that expects errors")
        for block in vars(self.parents[statement]).values():
            if isinstance(block, list) and statement in block:
                return block, block.index(statement)
        raise _Refused("it stands in an expression")

    def dies(self, statement: ast.stmt, name: str) -> bool:
        """Whether nothing reads a variable after a statement, until it is written."""
        if isinstance(statement, ast.Return):
            return True
        body, index = self.block(statement)
        for later in body[index + 1 :]:
            uses = _uses(later, name)
            if uses:
                return _assigned(later) == name and len(uses) == 1
        loads = [n for n in self.names if n.id == name and isinstance(n.ctx, ast.Load)]
        return body is self.definition.body or len(loads) == 1

    def check_before(self, node: ast.AST, statement: ast.stmt, chain: _Chain) -> None:
        """Note what of a statement runs before `node`, which has to run once."""
        while node is not statement:
            parent = self.parents[node]
            if isinstance(parent, _CONDITIONAL + _REPEATED):
                raise _Refused("what follows it depends on a condition")
            siblings = list(ast.iter_child_nodes(parent))
            chain.between += siblings[: siblings.index(node)]
            node = parent

    def is_fresh(self, call: ast.Call) -> bool:
        """Whether nothing else can hold, and change, what a call normalizes."""
        value = call.args[0]
        if self.parts[self.path(call.func) or ""].kind == "tail" or self.is_fresh_call(value):
            return True
        statement: ast.AST = call
        while not isinstance(statement, ast.stmt):
            statement = self.parents[statement]
        if not isinstance(value, ast.Name) or not isinstance(statement, _SIMPLE):
            return False
        name, (body, index) = value.id, self.block(statement)
        before = next((s for s in reversed(body[:index]) if _uses(s, name)), None)
        if before is None or _assigned(before) != name:
            return False
        loads = [n for n in _uses(statement, name) if isinstance(n.ctx, ast.Load)]
        gone = _assigned(statement) == name or self.dies(statement, name)
        return len(loads) == 1 and gone and self.is_fresh_call(vars(before)["value"])

    def is_fresh_call(self, node: ast.AST) -> bool:
        """Whether `node` calls a layer that returns a tensor of its own."""
        done, _ = self.operation(node)
        return isinstance(done, Part) and done.kind == "fresh"

    def check_between(self, chain: _Chain, fresh: bool) -> None:
        """Refuse a chain where what runs in between may meet its normalization, or the input."""
        for node in (inner for outer in chain.between for inner in ast.walk(outer)):
            if isinstance(node, ast.Name) and node.id == self.me:
                if not isinstance(self.parents[node], ast.Attribute):
                    raise _Refused(f"other code gets {self.me} before the ReLU")
            elif isinstance(node, ast.Call):
                path = self.path(node.func)
                part = self.parts.get(path or "")
                if path is not None and path.split(".")[0] == chain.path.split(".")[0]:
                    raise _Refused("it may be called again before the ReLU")
                if path is not None and part is None:
                    raise _Refused(f"self.{path} is called before the ReLU")
                if not fresh and (part is None or part.kind in _CHANGING):
                    raise _Refused("its input may be changed before the ReLU")
            elif not fresh and (
                isinstance(node, ast.AugAssign | ast.Delete)
                or (isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load))
            ):
                raise _Refused("its input may be changed before the ReLU")

    def described(self, user: ast.AST, done: object) -> str:
        """Why a chain ends here."""
        if isinstance(done, Part):
            return f"{done.name} follows, not a ReLU"
        if isinstance(user, ast.Return):
            return "the code returns its output"
        return "no ReLU follows"


def _uses(node: ast.AST, name: str) -> list[ast.Name]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id == name]


def _assigned(node: ast.AST) -> str | None:
    """The one variable that a statement assigns a value to."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return name
    return None
