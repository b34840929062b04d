"""Folding a batch normalization into the linear or convolution layer before or after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from companion.conversion.recognition import what_follows

from .copying import copy_of
from .frozen import (
    FoldingError,
    check_no_hooks,
    float64,
    frozen_norm,
    has_relu,
)

__all__ = ["fold_into_next", "fold_into_previous", "fold_normalization", "input_rank"]

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)
# Spatial axes of what PyTorch's layers take, but for the synchronized one, which takes any.
_SPATIAL_AXES = {nn.BatchNorm1d: (0, 1), nn.BatchNorm2d: (2,), nn.BatchNorm3d: (3,)}


def fold_into_previous(layer: Any, bn: Any) -> nn.Module:
    """One layer that computes ``bn(layer(x))``, bn in evaluation mode.

    With s = weight/√(running_var + eps) of `bn`, per output channel, W' = s·W and
    b' = s·(b - running_mean) + bias: a layer's padding, strides and the like do not matter.

    Parameters
    ----------
    layer
        Linear, Conv1d to 3d, or ConvTranspose1d to 3d, with or without a bias; it may be in
        training mode, its parameters may be shared or parametrized
    bn
        batch normalization of its output channels, of ``torch.nn`` or of this package (its ghost,
        noisy and frozen layers and batch renormalization included), with running statistics and in
        evaluation mode, in which only frozen layers need not be

    Returns
    -------
    nn.Module
        a layer of the class, settings, device and types of `layer`, with parameters of its own and
        a bias; computed in float64 and rounded once. Nothing given is changed. After Linear it is
        exact for inputs ``(N, in_features)``: with more axes, batch normalization's channels are
        not the last one.

    Raises
    ------
    FoldingError
        another kind of layer; channels or axes that do not fit; a `bn` in training mode, without
        running statistics, or with a ReLU of its own; hooks on either; lazy layers not
        materialized; a result that is not finite in the layer's type

    References
    ----------
    Eq. (8) inference/folded; Jacob et al. (2018), arXiv:1712.05877, §3.2.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> conv, bn = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4).eval()
    >>> x = torch.randn(2, 3, 5, 5)
    >>> torch.allclose(fold_into_previous(conv, bn)(x), bn(conv(x)), atol=1e-6)
    True
    """
    _check_no_activation(bn)
    return fold_normalization(layer, bn)


def fold_normalization(layer: Any, bn: Any) -> nn.Module:
    """:func:`fold_into_previous`, leaving out what a fused `bn` does after normalizing."""
    layer = _checked(layer)
    norm = frozen_norm(bn)
    out, _ = _channels(layer)
    _check_fit(layer, bn, out, "output")
    weight = _grouped(layer, layer.weight)
    bias = torch.zeros_like(norm.centre) if layer.bias is None else float64(layer.bias)
    slope = norm.slope.view(*weight.shape[:2], *[1] * (weight.ndim - 2))
    return _with(layer, weight * slope, norm.slope * (bias - norm.centre) + norm.offset)


def fold_into_next(bn: Any, layer: Any) -> nn.Module:
    """One layer that computes ``layer(bn(x))``, bn in evaluation mode.

    With s = weight/√(running_var + eps) and t = bias - s·running_mean of `bn`, per input channel,
    W' = W·s and b' = b + Σ W·t, the sum over input channels and taps. That takes for granted that
    every output sees t through every tap, so it is exact in these cases only:

    - Linear, for inputs ``(N, in_features)``;
    - a convolution without padding, or whose padding copies values of its input (`padding_mode`
      ``"reflect"``, ``"replicate"`` or ``"circular"``). Zeros are padded *after* the normalization,
      and stand for inputs of 0, not of t: near the border the sum must leave taps out;
    - a transposed convolution of kernel size and stride 1 without output padding. Others give an
      output as many taps as reach it;
    - any of them where t = 0 in every channel.

    Parameters
    ----------
    bn
        batch normalization in evaluation mode, as in :func:`fold_into_previous`
    layer
        as in :func:`fold_into_previous`

    Returns
    -------
    nn.Module
        a layer, as :func:`fold_into_previous`

    Raises
    ------
    FoldingError
        as :func:`fold_into_previous`, and where it would not be exact

    References
    ----------
    Eq. (13) mini-batch-algorithm/inference.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> bn, linear = nn.BatchNorm1d(3).eval(), nn.Linear(3, 2)
    >>> x = torch.randn(5, 3)
    >>> torch.allclose(fold_into_next(bn, linear)(x), linear(bn(x)), atol=1e-6)
    True
    """
    _check_no_activation(bn)
    layer = _checked(layer)
    norm = frozen_norm(bn)
    _, into = _channels(layer)
    _check_fit(layer, bn, into, "input")
    if bool(norm.shift.any()):
        _check_constants_pass(layer)
    weight = _grouped(layer, layer.weight)
    groups, _, per_group = weight.shape[:3]
    spatial = [1] * (weight.ndim - 3)
    moved = weight * norm.shift.view(groups, 1, per_group, *spatial)
    bias = moved.flatten(2).sum(2).flatten()
    if layer.bias is not None:
        bias = bias + float64(layer.bias)
    return _with(layer, weight * norm.slope.view(groups, 1, per_group, *spatial), bias)


def input_rank(layer: Any) -> int:
    """Axes, the batch's included, of inputs whose axis 1 holds the channels that `layer` sees."""
    return int(_checked(layer).weight.ndim)


def _checked(layer: Any) -> Any:
    """Refuse what is not, or not only, a linear map; return one without parametrizations."""
    kind = next((known for known in (nn.Linear, *_CONVOLUTIONS) if isinstance(layer, known)), None)
    own = kind is None or "forward" in vars(layer)
    for method in ("forward", "_conv_forward"):
        own = own or getattr(type(layer), method, None) is not getattr(kind, method, None)
    if own:
        raise FoldingError(
            "layer: expected Linear, Conv1d to 3d, or ConvTranspose1d to 3d of torch.nn, "
            f"got {type(layer).__name__}"
        )
    plain = _without_parametrizations(layer) if parametrize.is_parametrized(layer) else layer
    if isinstance(plain.weight, nn.UninitializedParameter) or not plain.weight.is_floating_point():
        raise FoldingError(f"layer: expected real weights, got {type(layer).__name__} without")
    check_no_hooks("layer", layer)
    return plain


def _without_parametrizations(layer: Any) -> Any:
    """A plain layer with the weights that the parametrizations give in evaluation mode."""
    # Copied by hand: PyTorch would take them from the class, which copies share.
    copied = copy_of(layer, "layer").eval()
    weights = {name: getattr(copied, name).detach() for name in copied.parametrizations}
    trained = {name: getattr(layer.parametrizations, name) for name in weights}
    plain = copied.train(layer.training)
    plain.__class__ = type(layer).__bases__[0]
    del plain.parametrizations
    for name, value in weights.items():
        trains = any(parameter.requires_grad for parameter in trained[name].parameters())
        setattr(plain, name, nn.Parameter(value, requires_grad=trains))
    return plain


def _check_no_activation(bn: nn.Module) -> None:
    if has_relu(bn):
        raise FoldingError(
            "bn: expected a layer without ReLU, got one with relu=True; fold(model, example) keeps "
            "the ReLU"
        )
    if what_follows(bn):
        raise FoldingError(
            f"bn: expected the normalization alone, got {type(bn).__name__}, which calls "
            f"{' and '.join(what_follows(bn))} after it; fold(model, example) keeps them"
        )


def _channels(layer: Any) -> tuple[int, int]:
    """Numbers of output and input channels."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    return layer.out_channels, layer.in_channels


def _check_fit(layer: Any, bn: Any, channels: int, side: str) -> None:
    normalized = bn.running_mean.numel()
    if normalized != channels:
        raise FoldingError(
            f"bn: expected {channels} channels, as the layer's {side}, got {normalized}"
        )
    spatial = layer.weight.ndim - 2
    if not _takes(bn, spatial):
        raise FoldingError(
            f"bn: expected a layer for {spatial} spatial axes, as the {side} of "
            f"{type(layer).__name__}, got {type(bn).__name__}"
        )
    if bn.running_mean.device != layer.weight.device:
        raise FoldingError(
            f"bn: expected the layer's device, {layer.weight.device}, got {bn.running_mean.device}"
        )


def _takes(bn: Any, spatial: int) -> bool:
    """Whether a normalization accepts an input with that many spatial axes."""
    layouts = getattr(bn, "_layouts", None)
    if layouts is not None:
        return spatial + 2 in layouts
    return all(spatial in axes for kind, axes in _SPATIAL_AXES.items() if isinstance(bn, kind))


def _check_constants_pass(layer: Any) -> None:
    """Refuse a layer that does not turn an input constant in each channel into such an output."""
    if isinstance(layer, nn.Linear):
        return
    if isinstance(layer, _TRANSPOSED):
        ones, zeros = (*layer.kernel_size, *layer.stride), layer.output_padding
        if any(size != 1 for size in ones) or any(size != 0 for size in zeros):
            raise FoldingError(
                "layer: expected kernel size and stride 1 in a transposed convolution after a "
                "normalization that moves 0, since the taps that reach an output differ, got "
                f"kernel_size={layer.kernel_size}, stride={layer.stride}, "
                f"output_padding={layer.output_padding}"
            )
        return
    padded = any(layer._reversed_padding_repeated_twice)
    if padded and layer.padding_mode == "zeros":
        raise FoldingError(
            "layer: expected no zero padding in a convolution after a normalization that moves 0, "
            "since the zeros are padded after the normalization and are not moved, got "
            f"padding={layer.padding!r}"
        )


def _grouped(layer: Any, weight: Tensor) -> Tensor:
    """The weight in float64 as ``(groups, outputs, inputs, *kernel)``, both counted per group."""
    groups = getattr(layer, "groups", 1)
    grouped = float64(weight).unflatten(0, (groups, -1))
    # A transposed convolution keeps (inputs, outputs per group, ...).
    return grouped.transpose(1, 2) if isinstance(layer, _TRANSPOSED) else grouped


def _with(layer: Any, grouped: Tensor, bias: Tensor) -> nn.Module:
    """A copy of `layer` with this weight, as :func:`_grouped`, and this bias."""
    weight = grouped.transpose(1, 2) if isinstance(layer, _TRANSPOSED) else grouped
    former = {"weight": layer.weight, "bias": layer.weight if layer.bias is None else layer.bias}
    folded = copy_of(layer, "layer")
    for name, value in (("weight", weight.flatten(0, 1)), ("bias", bias)):
        rounded = value.to(former[name])
        if not bool(rounded.isfinite().all()):
            raise FoldingError(
                f"layer: expected a folded {name} within the range of {rounded.dtype}, "
                "got values that are not finite"
            )
        setattr(folded, name, nn.Parameter(rounded, requires_grad=former[name].requires_grad))
    return folded
