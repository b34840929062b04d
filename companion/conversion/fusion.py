"""Normalization, sum and ReLU in one pass over memory, in the code that a model has.

A layer stays what it is, a :class:`companion.BatchNorm2d`, and so does the ReLU. Changed is the
block whose code calls one after the other: in its class's place comes a class below it whose
methods have, where the chain stands in their source, calls of the functions of this file. These
look at the layer when they are called. If it is still a plain one, without hooks, they run the
fused kernel; otherwise the code's own operations, in the code's own order. So a fused model may be
frozen, folded, synchronized, hooked, pruned, traced and changed like any other.

All else of the code stays. A trace by ``torch.fx`` would not do: it fixes what attributes,
arguments and modes were when it was made, and no error comes where they change.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType
from typing import Any, Generic, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from companion._torch import has_global_hooks, has_hooks
from companion.functional import batch_norm_act, dispatch
from companion.modules import _CompanionBatchNorm

from .chains import called_paths, rewrite
from .edits import HELPERS
from .paths import Part
from .source import SourceError, build, parse

__all__ = ["fuse", "own_class"]

_RELUS = (F.relu, F.relu_, torch.relu, torch.relu_, "relu", "relu_")
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear)

_Parts = frozenset[tuple[str, Part]]
_Outcomes = dict[nn.Module, str | None]


class _Pending(NamedTuple):
    """A normalization that has been called, and waits for what follows."""

    layer: _CompanionBatchNorm
    input: Tensor
    residual: Tensor | None


def _norm(layer: Any, input: Any) -> Any:
    """``layer(input)``, put off if the layer is a plain one."""
    if _is_plain(layer) and type(input) is Tensor and _is_as_made(layer):
        return _Pending(layer, input, None)
    return layer(input)


def _add(left: Any, right: Any) -> Any:
    """``left + right``, of which one may be put off."""
    if type(left) is _Pending:
        if _is_residual(right, left.input):
            return left._replace(residual=right)
        left = _settle(left)
    elif type(right) is _Pending:
        if _is_residual(left, right.input):
            return right._replace(residual=left)
        right = _settle(right)
    return left + right


def _iadd(left: Any, right: Any) -> Any:
    """``left += right``, of which the left may be put off."""
    if type(left) is _Pending:
        if _is_residual(right, left.input):
            return left._replace(residual=right)
        left = _settle(left)
    left += right
    return left


def _act(activation: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """``activation(value)``, a function, a module or the name of a method; or all in one pass."""
    if type(value) is _Pending:
        if type(activation) is nn.Identity and _is_as_made(activation):
            return value
        if _is_relu(activation):
            layer = value.layer
            arguments = layer._arguments(value.input, value.residual, True)
            return dispatch(batch_norm_act, arguments, layer.backend)
        value = _settle(value)
    if type(activation) is str:
        return getattr(value, activation)()
    return activation(value, *args, **kwargs)


def _settle(value: Any) -> Any:
    """A value as a tensor, if it was put off."""
    if type(value) is not _Pending:
        return value
    y = value.layer(value.input)
    return y if value.residual is None else y + value.residual


def _is_residual(value: Any, input: Tensor) -> bool:
    """Whether the kernel adds `value` as PyTorch does: nothing is promoted, spread or laid out."""
    return (
        type(value) is Tensor
        and value.shape == input.shape
        and value.dtype == input.dtype
        and value.device == input.device
        and value.stride() == input.stride()
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether batch normalization is all that a module does; this includes parametrized layers."""
    return getattr(type(module), "forward", None) is _CompanionBatchNorm.forward


def _is_as_made(module: nn.Module) -> bool:
    """Whether a call of a module is its class's ``forward``, and nothing else."""
    return not (has_hooks(module) or has_global_hooks() or "forward" in module.__dict__)


def _is_relu(activation: Any) -> bool:
    if isinstance(activation, nn.Module):
        return type(activation) is nn.ReLU and _is_as_made(activation)
    return activation in _RELUS


_FUNCTIONS = dict(zip(HELPERS, (_norm, _add, _iadd, _act, _settle), strict=True))


def _in_sequence(self: nn.Sequential, input: Any) -> Any:
    """Call one module after the other: a normalization and a ReLU in one pass."""
    for module in self:
        if type(module) in (nn.ReLU, nn.Identity):
            input = _act(module, input)
        else:
            input = _norm(module, _settle(input))
    return _settle(input)


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
        if _is_plain(module)
    }


def own_class(cls: type[nn.Module]) -> type[nn.Module] | None:
    """The class that a block had before it got `cls`, when it was fused; None if it was not."""
    own: type[nn.Module] | None = vars(cls).get("_fused_from")
    return own


def _fuse_block(block: nn.Module) -> _Outcomes:
    """Fuse what the code of one module calls: for each layer that it calls, None or why not."""
    cls: Any = own_class(type(block)) or type(block)
    if _is_plain(block) or not any(map(_is_plain, block.modules())):
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
        if not _is_plain(module) or found.get(module, "") is None:
            continue
        if following is None:
            found[module] = f"it is the last of a {type(block).__name__}"
        elif type(following) is not nn.ReLU:
            found[module] = f"{type(following).__name__} follows, not a ReLU"
        else:
            found[module] = next((_hooked(m) for m in (module, following) if _hooked(m)), None)
    return found


def _hooked(module: nn.Module) -> str | None:
    """Why a call of a module is not what its class does."""
    return None if _is_as_made(module) else f"{type(module).__name__} has hooks, or its own forward"


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
        reasons = [_hooked(m) or _named_twice(m, named) for m in at]
        parts[path] = _part(at, any(reasons))
        found |= {m: r for m, r in zip(at, reasons, strict=True) if r and _is_plain(m)}
    attributes = vars(block)["_modules"] | vars(block)
    for path in paths & attributes.keys() - parts.keys():
        function = attributes[path]
        is_relu = any(function is relu for relu in _RELUS)
        name = getattr(function, "__name__", type(function).__name__)
        parts[path] = Part("relu" if is_relu else "module", name)
    return frozenset(parts.items()), modules


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    """The plain layers that a module is, or that it lists."""
    inside = module.children() if isinstance(module, nn.ModuleList | nn.ModuleDict) else [module]
    return (m for m in inside if _is_plain(m))


def _named_twice(module: nn.Module, named: list[nn.Module]) -> str | None:
    if not _is_plain(module) or sum(other is module for other in named) == 1:
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
    if all(map(_is_plain, modules)) and not refused:
        return Part("norm", name)
    if all(type(module) is nn.ReLU for module in modules):
        return Part("module", f"{name} with hooks") if refused else Part("relu", name)
    if all(type(module) is nn.Identity for module in modules):
        return Part("identity", name)
    inside = [inner for module in modules for inner in module.modules()]
    if not all(type(m).__module__.startswith(("torch.nn.", "companion.")) for m in inside):
        return Part("module", name)
    if all(isinstance(module, _LAYERS) for module in modules):
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
    new = None if definition is None else build(function, definition, _FUNCTIONS)
    return new, fused, kept


@cache
def _fused_class(cls: type[nn.Module], parts: _Parts) -> type[nn.Module]:
    """A class below another, with fused methods, or the class itself if there are none."""
    methods: dict[str, Any] = {"forward": _in_sequence}
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
