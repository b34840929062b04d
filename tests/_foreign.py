"""Layers as other libraries write them: batch normalization in their own words."""

from abc import ABC

import torch
from torch import nn
from torch.nn import functional as F

import companion


class NormAct(nn.BatchNorm2d):
    """Normalizes, drops and acts, and calls no ``super().forward``."""

    def __init__(self, num_features, act=None, drop=None, **options):
        super().__init__(num_features, **options)
        self.drop = drop or nn.Identity()
        self.act = act or nn.ReLU(inplace=True)

    def forward(self, x):
        momentum = 0.0 if self.momentum is None else self.momentum
        tracks = self.training and self.track_running_stats
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        given = not self.training or self.track_running_stats
        batch = self.training or (self.running_mean is None and self.running_var is None)
        x = F.batch_norm(
            x,
            self.running_mean if given else None,
            self.running_var if given else None,
            *(self.weight, self.bias, batch, momentum, self.eps),
        )
        return self.act(self.drop(x))


class BelowNormAct(NormAct):
    """Has the same forward, and a way of its own to begin."""

    def reset_parameters(self):
        super().reset_parameters()
        nn.init.zeros_(self.weight)


class Frozen(nn.Module):
    """No batch normalization to ``isinstance``; buffers only, without a count."""

    def __init__(self, num_features, eps=1e-5):
        super().__init__()
        self.eps = eps
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0)):
            self.register_buffer(name, torch.full((num_features,), value))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


class FrozenAct(Frozen):
    """Has its ε in its code."""

    def __init__(self, num_features):
        super().__init__(num_features)
        del self.eps
        self.act = nn.SiLU()

    def forward(self, x):
        scale = (self.weight * (self.running_var + 1e-3).rsqrt()).view(1, -1, 1, 1)
        return self.act(
            (x - self.running_mean.view(1, -1, 1, 1)) * scale + self.bias.view(1, -1, 1, 1)
        )


class Renamed(nn.BatchNorm2d):
    """Another beginning, no forward of its own."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-3, momentum=0.01)
        self.kind = "mine"


class Abstract(nn.BatchNorm2d, ABC):
    """Has a type of its own."""


class AnyRank(nn.modules.batchnorm._BatchNorm):
    """Below the base of PyTorch's three; takes inputs of any rank."""

    def _check_input_dim(self, input):
        if input.dim() < 2:
            raise ValueError("at least two axes")


class Doubled(nn.BatchNorm2d):
    """Does something of its own around ``super().forward``."""

    def forward(self, x):
        return 2.0 * super().forward(x)


class Unknown(nn.BatchNorm2d):
    """Batch normalization in its own words, that nobody has registered."""

    def forward(self, x):
        return F.batch_norm(x, None, None, training=True)


companion.register_batch_norm(NormAct, then=("drop", "act"))
companion.register_batch_norm(Frozen, frozen=True)
companion.register_batch_norm(FrozenAct, then=("act",), frozen=True, eps=1e-3)


def perturbed(layer):
    """The layer, with parameters and statistics that nothing is by chance equal to."""
    with torch.no_grad():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(layer, name)
            if value is not None:
                value.copy_(torch.rand_like(value) + 0.5)
    return layer
