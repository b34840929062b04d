"""Folding every batch normalization of a graph that torch.fx traced."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from companion import functional
from companion._torch import has_hooks
from companion.conversion.recognition import what_follows

from .copying import copy_of
from .frozen import FoldingError, frozen_norm, has_relu, is_normalization
from .layers import fold_into_next, fold_normalization, input_rank
from .report import Folded, Kept

__all__ = ["GraphFolding", "fold_graph"]

_FUNCTIONS = (F.batch_norm, torch.batch_norm, functional.batch_norm, functional.batch_norm_act)


class _Ranks(fx.Interpreter):
    """Run a graph and remember how many axes each result has."""

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)
        self.ndims: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.ndims[n] = result.ndim
        return result


@dataclass
class GraphFolding:
    """A graph while its normalizations are folded, one after the other.

    Parameters
    ----------
    root
        holds the layers; folded ones are added to it, under new names, so that whatever else uses
        the old ones finds them as they were
    graph
        of calls of `root`'s modules
    ranks
        axes of each result
    """

    root: nn.Module
    graph: fx.Graph
    ranks: dict[fx.Node, int]
    folded: list[Folded] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    # Names of folded layers by the names of the two that they are made of, and back.
    _made: dict[tuple[str, str], str] = field(default_factory=dict, init=False)
    _origin: dict[str, str] = field(default_factory=dict, init=False)

    def module(self, value: Any) -> nn.Module | None:
        """The module that a node calls, or None."""
        if isinstance(value, fx.Node) and value.op == "call_module":
            return self.root.get_submodule(str(value.target))
        return None

    def fold(self) -> None:
        """Fold what can be folded, in the order of the calls."""
        for node in list(self.graph.nodes):
            part = self.module(node)
            if type(part) is nn.Identity and not has_hooks(part) and len(node.args) == 1:
                # Some networks have one wherever another variant of theirs has a layer.
                self._replace(node, node.args[0])
        for node in list(self.graph.nodes):
            if node.op == "call_function" and node.target in _FUNCTIONS:
                self.kept.append(Kept(node.name, "a call of a function; only layers are folded"))
            elif is_normalization(self.module(node)):
                self._fold_call(node)

    def _fold_call(self, node: fx.Node) -> None:
        reasons = []
        try:
            frozen_norm(self.module(node))
        except FoldingError as error:
            self.kept.append(Kept(str(node.target), str(error)))
            return
        for side, place in (("before", self._into_previous), ("after", self._into_next)):
            try:
                place(node)
            except FoldingError as error:
                reasons.append(f"{side} it: {error}")
            else:
                return
        self.kept.append(Kept(str(node.target), "; ".join(reasons)))

    def _into_previous(self, node: fx.Node) -> None:
        bn, source = self.module(node), _input(node)
        layer = self.module(source)
        if bn is None or layer is None or source is None:
            raise FoldingError(f"expected a layer, got {_described(source)}")
        self._check_rank(source, layer)
        if not _goes_only(source, node):
            raise FoldingError(f"the output of {source.target} is also used elsewhere")
        if not all(_goes_only(call, node) for call in self._calls(source)):
            raise FoldingError(f"{source.target} is also called where {node.target} is not next")
        key = (str(source.target), str(node.target))
        if key not in self._made:
            self._add(key, key[0], fold_normalization(layer, bn))
        self._record(node, key[0], "previous")
        source.target = self._made[key]
        self._replace(node, self._activated(node, bn, source))

    def _into_next(self, node: fx.Node) -> None:
        bn, user = self.module(node), next(iter(node.users), None)
        layer = self.module(user)
        if bn is None or layer is None or user is None or not _goes_only(node, user):
            users = " and ".join(_described(user) for user in node.users) or "nothing"
            raise FoldingError(f"expected one layer, got {users}")
        if _residual(node) is not None:
            raise FoldingError("expected the normalization alone, got one with a residual")
        self._check_rank(node, layer)
        for call in self._calls(user):
            before = _input(call)
            if before is None or before.target != node.target or not _goes_only(before, user):
                raise FoldingError(
                    f"{user.target} is also called where {node.target} is not before"
                )
        key = (str(node.target), str(user.target))
        if key not in self._made:
            self._add(key, key[1], fold_into_next(bn, layer))
        self._record(node, key[1], "next")
        user.target = self._made[key]
        self._replace(node, _input(node))

    def _check_rank(self, node: fx.Node, layer: nn.Module) -> None:
        """Check that axis 1 of what lies between the two holds the layer's channels."""
        expected, rank = input_rank(layer), self.ranks.get(node)
        if rank != expected:
            raise FoldingError(
                f"{type(layer).__name__} and batch normalization share their channels in "
                f"{expected} axes, got {rank}"
            )

    def _calls(self, node: fx.Node) -> list[fx.Node]:
        nodes = self.graph.nodes
        return [n for n in nodes if n.op == "call_module" and n.target == node.target]

    def _add(self, key: tuple[str, str], name: str, layer: nn.Module) -> None:
        # In the root itself: a Sequential on the way would call whatever is added to it.
        new = name.replace(".", "_") + "_folded"
        while hasattr(self.root, new):
            new += "_"
        self.root.add_module(new, layer)
        self._made[key] = new
        self._origin[new] = self._origin.get(name, name)

    def _record(self, node: fx.Node, layer: str, place: str) -> None:
        self.folded.append(Folded(str(node.target), self._origin.get(layer, layer), place))

    def _activated(self, node: fx.Node, bn: nn.Module, value: fx.Node) -> fx.Node:
        """What a layer does after normalizing, as operations of their own."""
        residual = _residual(node)
        with self.graph.inserting_before(node):
            if residual is not None:
                value = self.graph.call_function(torch.add, (value, residual))
            if has_relu(bn):
                value = self.graph.call_function(torch.relu, (value,))
            for name in what_follows(bn):
                value = self.graph.call_module(f"{node.target}.{name}", (value,))
        self.ranks[value] = self.ranks[node]
        return value

    def _replace(self, node: fx.Node, value: Any) -> None:
        node.replace_all_uses_with(value)
        self.graph.erase_node(node)


def fold_graph(root: nn.Module, graph: fx.Graph, example: tuple[Any, ...]) -> GraphFolding:
    """Fold the normalizations that `graph` calls; both `root` and `graph` are changed.

    Parameters
    ----------
    root
        module whose submodules the graph calls
    graph
        as traced from it
    example
        arguments of the graph; run on a copy, for the axes of what lies between
    """
    ranks = _Ranks(copy_of(root), graph)
    ranks.run(*example)
    folding = GraphFolding(root, graph, ranks.ndims)
    folding.fold()
    return folding


def _input(node: fx.Node) -> fx.Node | None:
    value = node.args[0] if node.args else node.kwargs.get("input")
    return value if isinstance(value, fx.Node) else None


def _residual(node: fx.Node) -> Any:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("residual")


def _goes_only(source: fx.Node, target: fx.Node) -> bool:
    """Whether the only use of `source` is as the input of the module that `target` calls."""
    users = list(source.users)
    if len(users) != 1 or (users[0].op, users[0].target) != ("call_module", target.target):
        return False
    return _input(users[0]) is source and _residual(users[0]) is not source


def _described(node: fx.Node | None) -> str:
    if node is None or node.op == "placeholder":
        return "an argument"
    if node.op == "output":
        return "the result"
    return node.name if node.op == "call_function" else str(node.target)
