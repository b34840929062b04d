"""A model as a graph of calls, as far as its code lets torch.fx see it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from companion._torch import has_hooks

from .frozen import is_normalization

__all__ = ["Calls", "observe", "trace"]

_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)


@dataclass
class Calls:
    """How a module was called.

    Parameters
    ----------
    arguments
        of the first call
    alone
        whether every call gave tensors with as many axes and nothing else, and every call of a part
        of it came from within
    """

    arguments: tuple[Any, ...]
    alone: bool = True


def observe(model: nn.Module, example: tuple[Any, ...]) -> dict[str, Calls]:
    """Run a model, which gets hooks, and see how its modules are called, by name."""
    calls_of: dict[str, Calls] = {}
    stack: list[str] = []
    inner: list[tuple[str, frozenset[str]]] = []

    def enter(name: str, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls = calls_of.setdefault(name, Calls(args))
        alike = not kwargs and _axes(args) == _axes(calls.arguments)
        calls.alone = calls.alone and alike and None not in _axes(args)
        inner.append((name, frozenset(stack)))
        stack.append(name)

    def leave(*_: Any) -> None:
        stack.pop()

    for name, module in model.named_modules():
        before = partial(enter, name)
        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(leave)
    model(*example)
    for name, around in inner:
        parts = name.split(".")
        for length in range(1, len(parts)):
            owner = ".".join(parts[:length])
            if owner in calls_of and owner not in around:
                calls_of[owner].alone = False
    return calls_of


def _axes(arguments: tuple[Any, ...]) -> list[int | None]:
    """Number of axes of each argument, None for what is no tensor."""
    return [value.ndim if isinstance(value, Tensor) else None for value in arguments]


class _Tracer(fx.Tracer):
    """Stops at layers, and at modules that have failed to be traced before."""

    def __init__(self, opaque: dict[nn.Module, str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.culprit: nn.Module | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        stop = m in self.opaque or isinstance(m, _LAYERS) or is_normalization(m)
        return stop or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            # The innermost one sees the error first.
            self.culprit = self.culprit or m
            raise


def trace(
    module: nn.Module, example: tuple[Any, ...]
) -> tuple[fx.Graph | None, dict[nn.Module, str]]:
    """Trace a module, taking submodules whose code cannot be traced as they are.

    Returns
    -------
    graph : fx.Graph | None
        its calls, or None if the module's own code cannot be traced
    opaque : dict[nn.Module, str]
        the modules that could not be, and why
    """
    opaque: dict[nn.Module, str] = {}
    if has_hooks(module) or "forward" in vars(module):
        return None, {module: "it has hooks, or a forward function set on the instance"}
    while True:
        tracer = _Tracer(opaque)
        try:
            return _trace_once(tracer, module, example), opaque
        except Exception as error:
            culprit = tracer.culprit or module
            text = (str(error).splitlines() or [""])[0] or type(error).__name__
            if culprit is module or culprit in opaque:
                return None, {module: text}
            opaque[culprit] = text


def _trace_once(tracer: _Tracer, module: nn.Module, example: tuple[Any, ...]) -> fx.Graph:
    signature = inspect.signature(type(module).forward)
    given = signature.bind(module, *example).arguments
    fixed: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if name not in given and parameter.default is not inspect.Parameter.empty:
            fixed[name] = parameter.default
        elif name in given and isinstance(given[name], (bool, int, float, str, type(None))):
            fixed[name] = given[name]
    graph = tracer.trace(module, fixed)
    # What the example leaves out has its default value, and is no argument any more.
    left_out = [name for name in fixed if name not in given]
    for node in reversed([node for node in graph.nodes if node.op == "placeholder"]):
        if any(node.target.rpartition("_")[0] == name for name in left_out):
            _erase(graph, node)
    # Without the tracer's class, which a pickled model would ask for.
    plain = fx.Graph()
    plain.output(plain.graph_copy(graph, {}))
    return plain


def _erase(graph: fx.Graph, node: fx.Node) -> None:
    """Erase a node and the checks made on it."""
    for user in list(node.users):
        _erase(graph, user)
    graph.erase_node(node)
