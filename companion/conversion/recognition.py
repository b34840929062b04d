"""Which layers are batch normalization, whoever wrote them: by what their ``forward`` does.

A subclass of PyTorch's layer that has no ``forward`` of its own, or whose ``forward`` calls that of
``super()``, is batch normalization, with whatever it does around. One that computes in its own
words is known by the place where its ``forward`` is defined, so that no other library is imported
here; or it is registered.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from companion._torch import BatchNormBase, has_hooks

__all__ = [
    "INSTANCE_NORMS",
    "PLAIN",
    "Form",
    "following",
    "form_of",
    "register_batch_norm",
    "torch_base",
    "what_follows",
]

_Module = TypeVar("_Module", bound=type[nn.Module])


@dataclass(frozen=True)
class Form:
    """What a class computes.

    Parameters
    ----------
    then
        the submodules that it calls after normalizing, in order
    frozen
        whether it normalizes with its running statistics in every mode
    eps
        ε of layers without an attribute of this name
    own
        whether its own ``forward`` is kept, since it calls that of ``super()``
    """

    then: tuple[str, ...] = ()
    frozen: bool = False
    eps: float | None = None
    own: bool = False


INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
PLAIN = Form()
_NORM_ACT = Form(then=("drop", "act"))
_FROZEN = Form(frozen=True)
# By module and qualified name of the function `forward`.
_KNOWN = {
    "timm.layers.norm_act:BatchNormAct2d.forward": _NORM_ACT,
    "timm.models.layers.norm_act:BatchNormAct2d.forward": _NORM_ACT,
    "timm.layers.norm_act:SyncBatchNormAct.forward": _NORM_ACT,
    "timm.layers.norm_act:FrozenBatchNormAct2d.forward": Form(("drop", "act"), frozen=True),
    "torchvision.ops.misc:FrozenBatchNorm2d.forward": _FROZEN,
    "detectron2.layers.batch_norm:FrozenBatchNorm2d.forward": _FROZEN,
    # Older ones have ε in their code.
    "transformers.models.*:*FrozenBatchNorm2d.forward": Form(frozen=True, eps=1e-5),
}
_STATE = ("weight", "bias", "running_mean", "running_var")
_registered: dict[Callable[..., Any], Form] = {}


def torch_base(cls: type) -> type[nn.Module] | None:
    """The class of PyTorch that a class is or is below: BatchNorm1d to 3d, or their base."""
    exact = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormBase)
    return next((base for base in exact if issubclass(cls, base)), None)


def form_of(cls: type) -> Form | None:
    """What a class computes, if it is batch normalization; None if it is not known to be."""
    made = getattr(cls, "form", None)
    if isinstance(made, Form):
        return made
    forward: Any = getattr(cls, "forward", None)
    form = _registered.get(forward) or _known(forward)
    base = torch_base(cls)
    if form is not None or base is None:
        return form
    own = [vars(c)["forward"] for c in cls.__mro__ if "forward" in vars(c)]
    # What the class and those between it and PyTorch's add.
    own = own[: next(i for i, f in enumerate(own) if f is base.forward)]
    if all(_calls_super(f) for f in own):
        return Form(own=True) if own else PLAIN
    return None


def _known(forward: Any) -> Form | None:
    name = f"{getattr(forward, '__module__', '')}:{getattr(forward, '__qualname__', '')}"
    return next((form for pattern, form in _KNOWN.items() if fnmatch(name, pattern)), None)


def _calls_super(forward: Any) -> bool:
    code = getattr(inspect.unwrap(forward), "__code__", None)
    return code is not None and {"super", "forward"} <= set(code.co_names)


def following(module: nn.Module, then: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """The submodules of these names that do something, in order."""
    for name in then:
        part = getattr(module, name, None)
        if part is not None and (type(part) is not nn.Identity or has_hooks(part)):
            yield name, part


def what_follows(module: nn.Module) -> tuple[str, ...]:
    """The names of the submodules that a layer calls after normalizing."""
    ours = type(module).__module__.startswith("companion.")
    # Frozen and synchronized layers of this package remember what theirs were.
    named = getattr(module, "then", ()) if ours else (form_of(type(module)) or PLAIN).then
    return tuple(name for name, _ in following(module, named))


def register_batch_norm(
    cls: _Module,
    *,
    then: Sequence[str] = (),
    frozen: bool = False,
    eps: float | None = None,
    example: nn.Module | None = None,
) -> _Module:
    """Let this package treat a class of yours as the batch normalization that it is.

    :func:`companion.convert`, :func:`companion.fold` and the like then serve layers of the class,
    and of those below it that have the same ``forward``. Known without this are classes whose
    ``forward`` is PyTorch's or calls that of ``super()``; ``BatchNormAct2d`` and
    ``FrozenBatchNormAct2d`` of timm; and the frozen layers of torchvision, detectron2 and
    transformers.

    Parameters
    ----------
    cls
        a subclass of PyTorch's BatchNorm1d, 2d or 3d, or of their base, with a ``forward`` that
        takes one tensor; or a module with weight, bias, running mean and variance, if `frozen`
    then
        names of the submodules that ``forward`` calls after normalizing, in order. A name that a
        layer has not, or as None, is passed over
    frozen
        whether it normalizes with running statistics in training mode, too
    eps
        ε, for a class that has no attribute `eps`
    example
        a layer of `cls` to compare with; by default ``cls(4)``

    Returns
    -------
    type[nn.Module]
        `cls`, so that this can decorate a class

    Raises
    ------
    TypeError
        `cls` is no class of the kind; there is no `example`, and ``cls(4)`` fails
    ValueError
        on a small batch the example does not do, forward or to its running statistics, what is
        claimed. Nothing is registered then

    Examples
    --------
    >>> class NormSwish(nn.BatchNorm2d):
    ...     def __init__(self, num_features):
    ...         super().__init__(num_features)
    ...         self.swish = nn.SiLU()
    ...
    ...     def forward(self, x):
    ...         y = F.batch_norm(
    ...             *(x, self.running_mean, self.running_var, self.weight, self.bias),
    ...             *(self.training, self.momentum, self.eps),
    ...         )
    ...         return self.swish(y)
    >>> register_batch_norm(NormSwish, then=("swish",)) is NormSwish
    True
    """
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(f"cls: expected a class of modules, got {cls!r}")
    if not frozen and not issubclass(cls, BatchNormBase):
        raise TypeError(
            "cls: expected a subclass of torch.nn's BatchNorm1d, 2d or 3d, or frozen=True, "
            f"got {cls.__name__}"
        )
    if isinstance(then, str):
        raise TypeError(f"then: expected names of submodules in a tuple, got {then!r}")
    form = Form(tuple(then), frozen, eps)
    if example is None:
        try:
            example = cls(4)
        except Exception as error:
            raise TypeError(
                f"example: expected a layer of {cls.__name__}, since {cls.__name__}(4) fails: "
                f"{error}"
            ) from error
    if type(example).forward is not cls.forward:
        raise TypeError(f"example: expected a layer of {cls.__name__}, got {example!r}")
    _check_claim(cls.__name__, form, example)
    _registered[cls.forward] = form
    return cls


def _check_claim(name: str, form: Form, example: Any) -> None:
    """Compare a layer, on small batches in both modes, with what is claimed of its class."""
    given = {"eps": form.eps} if form.eps is not None else {}
    state: dict[str, Any] = {key: getattr(example, key, given.get(key)) for key in (*_STATE, "eps")}
    missing = [key for key in ("running_mean", "running_var", "eps") if state[key] is None]
    if missing:
        raise ValueError(f"cls: expected layers with {', '.join(missing)}, got {name} without")
    accepted, refused = 0, ValueError()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for axes, training in itertools.product((4, 2, 3, 5), (True, False)):
            theirs = copy.deepcopy(example).train(training)
            torch.manual_seed(0)
            for value in (getattr(theirs, key) for key in _STATE):
                if value is not None:
                    value.copy_(torch.rand_like(value) + 0.5)
            x = torch.randn(6, state["running_mean"].numel(), *[3] * (axes - 2)) * 2.0 + 1.0
            x, ours = x.to(state["running_mean"]), copy.deepcopy(theirs)
            try:
                found = _seeded(theirs, x.clone())
            except Exception as error:
                refused = ValueError(str(error))
                continue
            if isinstance(found, Tensor) and found.shape != x.shape:
                refused = ValueError(f"an output of shape {tuple(found.shape)}")
                continue
            accepted += 1
            claimed = _seeded(partial(_claimed, ours, form, state["eps"]), x)
            pairs = [("output", found, claimed)]
            pairs += [(key, getattr(theirs, key), getattr(ours, key)) for key in _STATE[2:]]
            for what, one, other in pairs:
                if not _close(one, other):
                    steps = " ".join(["frozen"] * form.frozen + ["batch normalization"])
                    raise ValueError(
                        f"cls: expected {', then '.join([steps, *form.then])}, got {name}, whose "
                        f"{what} on an input of {axes} axes is another in "
                        f"{'training' if training else 'evaluation'} mode"
                    )
    if accepted == 0:
        raise ValueError(f"cls: expected layers that take a batch, got {name}: {refused}")


def _claimed(layer: Any, form: Form, eps: float, x: Tensor) -> Tensor:
    """What the class is said to compute, in PyTorch's words; for a first batch."""
    training = layer.training and not form.frozen
    momentum = getattr(layer, "momentum", None)
    y = F.batch_norm(
        *(x, layer.running_mean, layer.running_var, layer.weight, layer.bias, training),
        momentum=1.0 if momentum is None else momentum,
        eps=eps,
    )
    for _, part in following(layer, form.then):
        y = part(y)
    return y


def _seeded(function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """A result whose random numbers, such as dropout's, are the same each time."""
    torch.manual_seed(1)
    return function(x)


def _close(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and torch.allclose(one, other, rtol=1e-3, atol=1e-4)
