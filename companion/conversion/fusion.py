"""Normalization, sum and ReLU in one pass over memory, in the code that a model has.

A layer stays what it is, a :class:`companion.BatchNorm2d`, and so does the ReLU. Changed is the
block whose code calls one after the other: in its class's place comes a class below it whose
methods have, where the chain stands in their source, calls of the functions in :mod:`.pending`.
These look at the layer when they are called. If it is still a plain one, without hooks, they run
the fused kernel; otherwise the code's own operations, in the code's own order. So a fused model may
be frozen, folded, synchronized, hooked, pruned, traced and changed like any other.

All else of the code stays. A trace by ``torch.fx`` would not do: it fixes what attributes,
arguments and modes were when it was made, and no error comes where they change.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Generic

import torch
from torch import fx, nn

from .chains import called_paths, rewrite
from .paths import Part
from .pending import FUNCTIONS, LAYERS, RELUS, in_sequence, is_as_made, is_plain, tail
from .source import SourceError, build, parse

__all__ = ["fuse", "own_class"]

_Parts = frozenset[tuple[str, Part]]
_Outcomes = dict[nn.Module, str | None]


def fuse(model: nn.Module) -> dict[str, str | None]:
    """Use the fused kernel where code of `model` calls a normalization, a sum and a ReLU in turn.

    Parameters
    ----------
    model
        any module, whose layers are this package's; blocks in it get classes below their own

    Returns
    -------
    dict[str, str | None]
        for each plain layer, by name: None where it is fused, else why not
    """
    outcomes: _Outcomes = {}
    for block in list(model.modules()):
        for layer, reason in _fuse_block(block).items():
            if reason is None or layer not in outcomes:
                outcomes[layer] = reason
    return {
        name: outcomes.get(module, "no code of the model calls it by its name")
        for name, module in model.named_modules()
        if is_plain(module)
    }


def own_class(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class that a block had before it got `cls`, when it was fused; None if it was not."""
    own: type[nn.Module] | None = vars(cls).get("_fused_from")
    return own


def _fuse_block(block: nn.Module) -> _Outcomes:
    """Fuse what the code of one module calls: for each layer that it calls, None or why not."""
    cls: Any = own_class(type(block)) or type(block)
    if is_plain(block) or not any(map(is_plain, block.modules())):
        return {}
    parts: _Parts = frozenset()
    obstacle = _obstacle(block, cls)
    if obstacle is not None:
        layers = [layer for child in block.children() for layer in _listed(child)]
        return dict.fromkeys(layers, f"{cls.__name__}, which holds it, {obstacle}")
    if cls.forward is nn.Sequential.forward:
        found = _found_in_sequence(block)
    elif cls.__module__.startswith("torch."):
        return {}
    else:
        found, parts = _found_in_code(block, cls)
    if None in found.values():
        block.__class__ = _fused_class(cls, parts)
    return found


def _obstacle(block: nn.Module, cls: type[nn.Module]) -> str | None:
    """Why a module cannot have a class below its own."""
    if "forward" in vars(block):
        return "has a forward function set on the instance"
    if isinstance(block, torch.jit.ScriptModule | fx.GraphModule):
        return "was made by torch.jit or torch.fx"
    if nn.utils.parametrize.is_parametrized(block):
        return "has parametrizations"
    told = any(
        "__init_subclass__" in vars(base) for base in cls.__mro__[:-1] if base is not Generic
    )
    if told or type(cls) not in (type, ABCMeta):
        return "has a class that does more than be inherited from"
    return None


def _found_in_sequence(block: nn.Module) -> _Outcomes:
    modules = [m for m in block if type(m) is not nn.Identity]  # type: ignore[attr-defined]
    found: _Outcomes = {}
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        layer = module if is_plain(module) else tail(module)
        if layer is None or found.get(layer, "") is None:
            continue
        if following is None:
            found[layer] = f"it is the last of a {type(block).__name__}"
        elif type(following) is not nn.ReLU:
            found[layer] = f"{type(following).__name__} follows, not a ReLU"
        else:
            reasons = (_hooked(one) for one in (layer, module, following))
            found[layer] = next((reason for reason in reasons if reason), None)
    return found


def _hooked(module: nn.Module) -> str | None:
    """Why a call of a module is not what its class does."""
    return None if is_as_made(module) else f"{type(module).__name__} has hooks, or its own forward"


def _found_in_code(block: nn.Module, cls: type[nn.Module]) -> tuple[_Outcomes, _Parts]:
    """What the methods of a class call, and what of it can be fused."""
    found: _Outcomes = {}
    functions = _methods(cls, frozenset(name for name, _ in block.named_children()))
    paths: set[str] = set()
    for method in functions.values():
        try:
            paths |= called_paths(parse(method))
        except SourceError as error:
            for name in _names(method.__code__) & vars(block)["_modules"].keys():
                found |= {m: str(error) for m in _listed(block.get_submodule(name))}
    parts, modules = _parts_at(block, paths, found)
    rewritten = [_rewritten(method, parts) for method in functions.values()]
    for _, _, kept in rewritten:
        found |= {m: reason for path, reason in kept.items() for m in modules[path]}
    for _, fused, _ in rewritten:
        found |= {m: None for path in fused for m in modules[path]}
    return found, parts


def _parts_at(
    block: nn.Module, paths: set[str], found: _Outcomes
) -> tuple[_Parts, dict[str, list[nn.Module]]]:
    """What paths lead to; why layers there cannot be fused is added to `found`."""
    modules = {path: at for path in sorted(paths) if (at := _modules_at(block, path))}
    named = [module for _, module in block.named_modules(remove_duplicate=False)]
    parts: dict[str, Part] = {}
    for path, at in modules.items():
        tails = [layer for layer in map(tail, at) if layer is not None]
        if len(tails) == len(at) and not any(map(_hooked, at)):
            at[:] = tails
        reasons = [_hooked(m) or _named_twice(m, named) for m in at]
        parts[path] = _part(at, any(reasons))
        if at == tails:
            parts[path] = Part("module" if any(reasons) else "tail", parts[path].name)
        found |= {m: r for m, r in zip(at, reasons, strict=True) if r and is_plain(m)}
    attributes = vars(block)["_modules"] | vars(block)
    for path in paths & attributes.keys() - parts.keys():
        function = attributes[path]
        is_relu = any(function is relu for relu in RELUS)
        name = getattr(function, "__name__", type(function).__name__)
        parts[path] = Part("relu" if is_relu else "module", name)
    return frozenset(parts.items()), modules


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    """The plain layers that a module is, or that it lists."""
    inside = module.children() if isinstance(module, nn.ModuleList | nn.ModuleDict) else [module]
    return (m for m in inside if is_plain(m))


def _named_twice(module: nn.Module, named: list[nn.Module]) -> str | None:
    if not is_plain(module) or sum(other is module for other in named) == 1:
        return None
    return "it has several names"


def _modules_at(block: nn.Module, path: str) -> list[nn.Module]:
    """The modules that a path such as ``"a.0"`` or ``"a.*"`` leads to."""
    modules = [block]
    for name in path.split("."):
        below = [item for module in modules for item in vars(module)["_modules"].items()]
        modules = [module for key, module in below if name in (key, "*") and module is not None]
    return modules


def _part(modules: list[nn.Module], refused: bool) -> Part:
    """What modules, reached by one path, are to the code that calls them."""
    name = " or ".join(sorted({type(module).__name__ for module in modules}))
    if all(map(is_plain, modules)) and not refused:
        return Part("norm", name)
    if all(type(module) is nn.ReLU for module in modules):
        return Part("module", f"{name} with hooks") if refused else Part("relu", name)
    if all(type(module) is nn.Identity for module in modules):
        return Part("identity", name)
    inside = [inner for module in modules for inner in module.modules()]
    if not all(type(m).__module__.startswith(("torch.nn.", "companion.")) for m in inside):
        return Part("module", name)
    if all(isinstance(module, LAYERS) for module in modules):
        return Part("fresh", name)
    changing = any(getattr(inner, "inplace", False) for inner in inside)
    return Part("module" if changing else "pure", name)


def _methods(cls: type[nn.Module], children: frozenset[str]) -> dict[str, FunctionType]:
    """The methods of a class, PyTorch's left out, that name one of a module's children."""
    found: dict[str, Any] = {}
    for base in cls.__mro__:
        for name, value in vars(base).items():
            theirs = base.__module__.startswith("torch.") or name.startswith("__")
            found.setdefault(name, None if theirs else value)
    return {
        name: value
        for name, value in found.items()
        if isinstance(value, FunctionType) and children & _names(value.__code__)
    }


def _names(code: CodeType) -> set[str]:
    """Names that code, and functions in it, look up."""
    inner = (_names(value) for value in code.co_consts if isinstance(value, CodeType))
    return set(code.co_names).union(*inner)


@cache
def _rewritten(
    function: FunctionType, parts: _Parts
) -> tuple[FunctionType | None, tuple[str, ...], dict[str, str]]:
    """A method with its chains fused, or None; see :class:`.chains.Rewritten`."""
    try:
        definition, fused, kept = rewrite(function, parse(function), dict(parts))
    except SourceError:
        return None, (), {}
    new = None if definition is None else build(function, definition, FUNCTIONS)
    return new, fused, kept


@cache
def _fused_class(cls: type[nn.Module], parts: _Parts) -> type[nn.Module]:
    """A class below another, with fused methods, or the class itself if there are none."""
    methods: dict[str, Any] = {"forward": in_sequence}
    if cls.forward is not nn.Sequential.forward:
        functions = _methods(cls, frozenset(path.split(".")[0] for path, _ in parts))
        all_new = {name: _rewritten(function, parts)[0] for name, function in functions.items()}
        methods = {name: new for name, new in all_new.items() if new is not None}
        if not methods:
            return cls
    about = {name: vars(cls).get(name) for name in ("__module__", "__qualname__", "__doc__")}
    about["__qualname__"] = cls.__qualname__
    marks = {"_fused_from": cls, "_fused_parts": parts, "__reduce_ex__": _reduce}
    make: Any = type(cls)
    return make(cls.__name__, (cls,), {**about, **marks, **methods})


def _reduce(self: nn.Module, protocol: int) -> Any:
    """What pickle and copy take a fused block for: one of its own class, to be fused again."""
    cls = type(self)
    own = own_class(cls)
    if own is None:
        # A class below the fused one, which another tool has made, knows how to be pickled.
        fused: Any = next(base for base in cls.__mro__ if "_fused_from" in vars(base))
        return super(fused, self).__reduce_ex__(protocol)
    reduced = own.__reduce_ex__(self, protocol)
    if isinstance(reduced, str):
        return reduced
    make, arguments, *rest = reduced
    arguments = tuple(own if value is cls else value for value in arguments)
    return _make_fused, (vars(cls)["_fused_parts"], make, *arguments), *rest


def _make_fused(parts: _Parts, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make a block as its own class does, and fuse it, if its source is still what it was."""
    block = make(*arguments)
    cls: Any = type(block)
    block.__class__ = _fused_class(cls, parts)
    return block
