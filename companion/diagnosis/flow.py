"""Which call of a model gets the output of which: seen while it runs, or traced without data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, resolve_name

from companion._torch import tensors_in
from companion.running import recomputing
from companion.statistics.layers import Layer

__all__ = ["Flow", "Node", "recorded", "traced"]


@dataclass(frozen=True)
class Node:
    """A call.

    Parameters
    ----------
    layer
        qualified name of the module called; empty for a function
    function
        name of the function; empty for a module
    inputs
        the calls whose results it got, in the order of its arguments
    """

    layer: str
    function: str
    inputs: tuple[int, ...]


@dataclass
class Flow:
    """The calls of one run, in their order.

    Parameters
    ----------
    nodes
        modules without parts of their own, batch normalizations, and functions between them
    outputs
        which of them the model returns
    """

    nodes: list[Node] = field(default_factory=list)
    outputs: frozenset[int] = frozenset()

    def calls(self, layer: str) -> list[int]:
        """Where a module is called."""
        return [index for index, node in enumerate(self.nodes) if node.layer == layer]

    def users(self, index: int) -> list[int]:
        """The calls that get this one's result."""
        return [user for user, node in enumerate(self.nodes) if index in node.inputs]

    def only_user(self, index: int) -> int | None:
        """The one call that gets this one's result, if nothing else does."""
        users = self.users(index)
        return users[0] if len(users) == 1 and index not in self.outputs else None

    def before(self, index: int, stop: Callable[[Node], bool]) -> set[int]:
        """All calls that lead to this one; those where `stop` holds lead no further."""
        reached: set[int] = set()
        waiting = list(self.nodes[index].inputs)
        while waiting:
            call = waiting.pop()
            if call not in reached:
                reached.add(call)
                if not stop(self.nodes[call]):
                    waiting += self.nodes[call].inputs
        return reached


def _opaque(module: nn.Module) -> bool:
    """Whether a call of the module counts as one, whatever it does inside."""
    return isinstance(module, Layer) or next(module.children(), None) is None


def _passes_on(module: nn.Module) -> bool:
    """Whether it returns its input: some networks have one where others have a layer."""
    return type(module) is nn.Identity or (type(module) is nn.Sequential and not len(module))


class _Recorder(TorchFunctionMode):
    """Notes each call of a function that gives tensors, except inside opaque modules."""

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow()
        self.depth = 0
        self.maker: dict[int, int] = {}
        # Kept alive: the name of a tensor is where it is in memory.
        self.tensors: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.depth == 0 and not recomputing():
            made = tensors_in(result)
            name = (resolve_name(func) or getattr(func, "__name__", "")).rpartition(".")[2]
            if made and name not in ("__get__", "detach"):
                self.note(Node("", name, self.makers((args, kwargs))), made)
        return result

    def makers(self, values: Any) -> tuple[int, ...]:
        return tuple(self.maker[id(t)] for t in tensors_in(values) if id(t) in self.maker)

    def note(self, node: Node, results: list[Tensor]) -> None:
        self.flow.nodes.append(node)
        for tensor in results:
            self.maker[id(tensor)] = len(self.flow.nodes) - 1
            self.tensors.append(tensor)

    def enter(self, *_: Any) -> None:
        self.depth += 1

    def leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.depth -= 1
        if self.depth == 0 and not recomputing() and not _passes_on(module):
            self.note(Node(name, "", self.makers((args, kwargs))), tensors_in(output))


@contextmanager
def recorded(model: nn.Module) -> Iterator[Callable[[Any], Flow]]:
    """Watch a run of the model; what is yielded takes its output and gives the flow."""
    recorder = _Recorder()

    def finish(output: Any) -> Flow:
        recorder.flow.outputs = frozenset(recorder.makers(output))
        return recorder.flow

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if _opaque(module):
                before = module.register_forward_pre_hook(recorder.enter, with_kwargs=True)
                after = module.register_forward_hook(
                    partial(recorder.leave, name), with_kwargs=True
                )
                stack.callback(before.remove)
                stack.callback(after.remove)
        stack.enter_context(recorder)
        yield finish


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return _opaque(m)


def traced(model: nn.Module) -> Flow | None:
    """The flow as ``torch.fx`` sees it, or None where the model's code cannot be traced."""
    if _opaque(model):
        return Flow()
    try:
        graph = _Tracer().trace(model)
    except Exception:  # whatever the model's code raises at a stand-in for a tensor
        return None
    modules = dict(model.named_modules())
    flow, places, outputs = Flow(), dict[fx.Node, int](), list[int]()
    for node in graph.nodes:
        inputs = tuple(places[value] for value in node.all_input_nodes if value in places)
        if node.op == "output":
            outputs += inputs
        elif node.op not in ("placeholder", "get_attr"):
            module = node.op == "call_module"
            if module and _passes_on(modules[str(node.target)]):
                places[node] = inputs[0]
                continue
            target = str(getattr(node.target, "__name__", node.target))
            places[node] = len(flow.nodes)
            flow.nodes.append(Node(target if module else "", "" if module else target, inputs))
    flow.outputs = frozenset(outputs)
    return flow
