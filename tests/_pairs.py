"""PyTorch's layers beside ours: for each of ours one that is to behave like it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from _ways import SHAPES, Side
from torch import Tensor, nn

import companion
from companion import variants


class _Act:
    """Batch normalization, then a ReLU."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(super().forward(input))


class TorchAct1d(_Act, nn.BatchNorm1d):
    pass


class TorchAct2d(_Act, nn.BatchNorm2d):
    pass


class TorchAct3d(_Act, nn.BatchNorm3d):
    pass


class _Renorm:
    """The standard deviation is averaged, not the variance."""

    def forward(self, input: Tensor) -> Tensor:
        var = self.running_var
        former = None if var is None else var.detach().double().add(self.eps).sqrt()
        y = super().forward(input)
        moves = self.training and self.track_running_stats and input.numel() > 0
        if moves and former is not None:
            own = input.detach().double().transpose(0, 1).flatten(1).var(1, correction=0)
            share = self.momentum
            if share is None:
                share = 1.0 / float(self.num_batches_tracked) if self.num_batches_tracked else 0.0
            moved = (1 - share) * former + share * own.add(self.eps).sqrt()
            var.data.copy_((moved.square() - self.eps).clamp(min=0))
        return y


class TorchRenorm1d(_Renorm, nn.BatchNorm1d):
    pass


class TorchRenorm2d(_Renorm, nn.BatchNorm2d):
    pass


class TorchRenorm3d(_Renorm, nn.BatchNorm3d):
    pass


class TorchFrozen(nn.Module):
    """torchvision.ops.FrozenBatchNorm2d, for any rank, with the count and initial values."""

    def __init__(self, num_features, eps=1e-5, affine=True, device=None, dtype=None):
        super().__init__()
        ones = torch.ones(num_features, device=device, dtype=dtype)
        self.eps = eps
        self.register_buffer("weight", ones.clone() if affine else None)
        self.register_buffer("bias", torch.zeros_like(ones) if affine else None)
        self.register_buffer("running_mean", torch.zeros_like(ones))
        self.register_buffer("running_var", ones.clone())
        self.register_buffer("num_batches_tracked", torch.tensor(0, device=device))

    def reset_parameters(self) -> None:
        for name, value in self.named_buffers():
            value.fill_(float(name in ("weight", "running_var")))

    def forward(self, input: Tensor) -> Tensor:
        shape = (1, -1, *(1,) * (input.dim() - 2))
        scale = (self.running_var.reshape(shape) + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight.reshape(shape)
        y = (input - self.running_mean.reshape(shape)) * scale
        return y if self.bias is None else y + self.bias.reshape(shape)


@dataclass
class Pair:
    ours: Side
    theirs: Side
    # Whether it has running statistics that it moves.
    tracks: bool = True


_SILENT = {"shift_limit": 0.0, "scale_limit": 1.0, "shift_spread": 0.0, "scale_spread": 0.0}
# Options with which a layer does what PyTorch's does, or what the class above does.
_FAMILY: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "BatchNorm": ("companion.BatchNorm", "BatchNorm", {}, "1d 1d-long 2d"),
    "Act": ("companion.BatchNormAct", "TorchAct", {}, "1d 3d"),
    "Ghost": ("GhostBatchNorm", "BatchNorm", {"ghost_size": 6}, "2d"),
    "Renorm": ("BatchRenorm", "TorchRenorm", {"r_max": 1.0, "d_max": 0.0}, "1d"),
    "Noisy": ("NoisyBatchNorm", "BatchNorm", _SILENT, "2d"),
    "Weighted": ("ExampleWeightedBatchNorm", "BatchNorm", {"alpha": 0.0}, "3d"),
    "Masked": ("MaskedBatchNorm", "BatchNorm", {}, "1d-long"),
    "Sync": ("companion.SyncBatchNorm", "torch.SyncBatchNorm", {}, "2d"),
}


def _find(name: str) -> Any:
    package, _, short = name.rpartition(".")
    if package:
        return getattr(nn if package == "torch" else companion, short, None)
    return globals().get(name) or getattr(variants, name, None) or getattr(nn, name, None)


def _pairs() -> dict[str, Pair]:
    pairs = {}
    for name, (own, torchs, options, keys) in _FAMILY.items():
        for key in keys.split():
            shape, rank = SHAPES[key], key[:2]
            ours = Side(_find(own + rank) or _find(own), options=options, shape=shape)
            theirs = Side(_find(torchs + rank) or _find(torchs), shape=shape)
            pairs[f"{name}-{key}"] = Pair(ours, theirs)
    images = SHAPES["2d"]
    for name, ours, theirs, *arguments in (
        ("Frozen-2d", variants.FrozenBatchNorm2d, TorchFrozen, (4,), {}, images),
        ("Group-2d", variants.GroupNorm, nn.GroupNorm, (2, 4), {}, images),
        ("Instance-2d", variants.InstanceNorm2d, nn.InstanceNorm2d, (4,), {"affine": True}, images),
        ("Layer-1d", variants.LayerNorm, nn.LayerNorm, (4,), {}, SHAPES["1d"]),
    ):
        pairs[name] = Pair(Side(ours, *arguments), Side(theirs, *arguments), tracks=False)
    return pairs


PAIRS = _pairs()
