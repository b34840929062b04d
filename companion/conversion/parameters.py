"""Which parameters of a model weight decay should reach."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from companion._torch import NormBase

__all__ = ["parameter_groups"]

_NORMALIZATION = (NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
# And whatever is called so: DecorrelatedBatchNorm2d, LlamaRMSNorm, BatchNormAct2d.
_CALLED_SO = re.compile(r"Norm(Act)?([123]d)?$")
_PARAMETRIZED = re.compile(r"(?:(?P<layer>.*)\.)?parametrizations\.(?P<own>[^.]+)\..+")


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_normalization: bool = False
) -> list[dict[str, Any]]:
    """Groups for an optimizer, such that weight decay does not reach γ, β and biases.

    Decay does not limit what weights before a normalization compute, nor γ and β that only another
    normalization reads; in the last layers, and where a residual is added, it pulls the network's
    function towards 0. It is common to decay neither γ and β nor biases.

    Parameters
    ----------
    model
        any module
    weight_decay
        λ, of the parameters that are decayed; finite and not below 0
    decay_normalization
        whether parameters of normalization layers are decayed, too

    Returns
    -------
    list of dict
        two, for any optimizer of ``torch.optim``: the first is decayed, the second is not, and
        either may be empty. In each, ``"params"`` are the parameters, ``"param_names"`` their names
        in the model, in its order, and ``"weight_decay"`` is λ or 0. Parameters that need no
        gradient are in neither; ``optimizer.add_param_group`` adds them when they do

    Raises
    ------
    TypeError
        `model` is not a module
    ValueError
        `weight_decay` is below 0 or not finite; a lazy parameter, which has no shape yet

    Notes
    -----
    *Not decayed* are the parameters of normalization layers (PyTorch's, this package's, and other
    libraries' whose class is called so, ``…Norm``, ``…Norm2d``, ``…NormAct2d``), parameters whose
    name has the word ``bias``, and all others with one dimension or none, such as a scale per
    channel. Everything else is decayed, embeddings included. timm's ``param_groups_weight_decay``
    asks for dimensions and the ending ``.bias`` alone.

    *Shared parameters* are listed once, under their first name; they are not decayed if one of the
    layers that share them says so.

    *Parametrized weights.* What a parametrization computes a weight from is decayed where the
    weight would be: so are both parts of a weight norm.

    References
    ----------
    Eq. (12) weight-decay/affine-scale; He, Zhang, Zhang, Zhang, Xie & Li (2019), arXiv:1812.01187,
    section 3.1, "No bias decay".

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    >>> groups = parameter_groups(model, weight_decay=1e-4)
    >>> for group in groups:
    ...     print(group["weight_decay"], group["param_names"])
    0.0001 ['0.weight', '3.weight']
    0.0 ['0.bias', '1.weight', '1.bias', '3.bias']
    >>> optimizer = torch.optim.AdamW(groups, lr=1e-3)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    if not (weight_decay >= 0.0 and math.isfinite(weight_decay)):
        raise ValueError(f"weight_decay: expected a finite number not below 0, got {weight_decay}")
    spared = {id(value) for value in _spared(model, decay_normalization)}
    groups: list[dict[str, Any]] = [
        {"params": [], "param_names": [], "weight_decay": decay} for decay in (weight_decay, 0.0)
    ]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = groups[id(parameter) in spared]
            group["params"].append(parameter)
            group["param_names"].append(name)
    return groups


def _spared(model: nn.Module, decay_normalization: bool) -> Iterator[nn.Parameter]:
    """The parameters that are not decayed, each if one of its names says so."""
    owners = dict(model.named_modules(remove_duplicate=False))
    named = list(model.named_parameters(remove_duplicate=False))
    # Of a parametrized weight the largest part has as many dimensions as the weight.
    dimensions: dict[tuple[str, str], int] = {}
    for name, parameter in named:
        if is_lazy(parameter):
            raise ValueError(
                f"model: expected parameters with a shape, got a lazy one, {name!r}: call the "
                "model once before"
            )
        place = _place(name)
        dimensions[place] = max(parameter.ndim, dimensions.get(place, 0))
    for name, parameter in named:
        owner, own = place = _place(name)
        if _normalizes(owners[owner]):
            if not decay_normalization:
                yield parameter
        elif dimensions[place] < 2 or "bias" in own.split("_"):
            yield parameter


def _place(name: str) -> tuple[str, str]:
    """The name of a parameter's layer, and what the layer calls the parameter."""
    parametrized = _PARAMETRIZED.fullmatch(name)
    if parametrized:
        return parametrized["layer"] or "", parametrized["own"]
    layer, _, own = name.rpartition(".")
    return layer, own


def _normalizes(layer: nn.Module) -> bool:
    return isinstance(layer, _NORMALIZATION) or bool(_CALLED_SO.search(type(layer).__name__))
