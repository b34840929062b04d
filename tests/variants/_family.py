"""Shared by the tests of the family: its layers with what they replace, batches, trained models."""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import companion
from companion import data, variants
from companion.experiments import train

SHAPES = {"1d": (8, 3), "1d-long": (8, 3, 5), "2d": (8, 3, 4, 5), "3d": (8, 3, 2, 3, 4)}
PARAMETER_TYPES = {torch.float16: torch.float32, torch.bfloat16: torch.float32}


@dataclass
class Member:
    """A layer of the family: its class, PyTorch's of the same name, and its own arguments."""

    cls: type[nn.Module]
    torch_cls: type[nn.Module]
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    arguments: tuple[Any, ...] = (3,)
    tracks: bool = True

    def make(self, dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
        given = {name: make() for name, make in self.options.items()} | options
        layer = self.cls(*self.arguments, dtype=PARAMETER_TYPES.get(dtype, dtype), **given)
        return randomized(layer)

    def batch(self, dtype: torch.dtype = torch.float64, size: int | None = None) -> Tensor:
        return batch((size or self.shape[0], *self.shape[1:]), dtype)


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2.0 + 1.0).to(dtype)


def randomized(layer: nn.Module) -> nn.Module:
    """Random, positive parameters and running statistics."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return layer


def _members() -> dict[str, Member]:
    members = {}
    own = {
        "GhostBatchNorm": {"ghost_size": lambda: 3},
        "BatchRenorm": {"r_max": lambda: 1.5, "d_max": lambda: 0.4},
        "NoisyBatchNorm": {"generator": lambda: torch.Generator().manual_seed(5)},
        "ExampleWeightedBatchNorm": {"alpha": lambda: 0.3},
        "FrozenBatchNorm": {},
    }
    for name, options in own.items():
        for key, shape in SHAPES.items():
            dims = key[:2]
            cls, torch_cls = getattr(variants, name + dims), getattr(nn, f"BatchNorm{dims}")
            members[f"{name}-{key}"] = Member(cls, torch_cls, shape, options)
    for key in ("1d-long", "2d", "3d"):
        cls = getattr(variants, f"InstanceNorm{key[:2]}")
        torch_cls = getattr(nn, f"InstanceNorm{key[:2]}")
        affine = {"affine": lambda: True}
        members[f"InstanceNorm-{key}"] = Member(cls, torch_cls, SHAPES[key], affine, tracks=False)
    members["GroupNorm"] = Member(
        variants.GroupNorm, nn.GroupNorm, (8, 6, 4, 5), {}, (2, 6), tracks=False
    )
    members["LayerNorm"] = Member(
        variants.LayerNorm, nn.LayerNorm, (8, 3, 4, 5), {}, ((4, 5),), tracks=False
    )
    return members


MEMBERS = _members()


@functools.cache
def _trained(seed: int) -> tuple[nn.Module, data.Split]:
    torch.manual_seed(seed)
    split = data.digits(seed)
    layers = []
    for features in (64, 64):
        layers += [nn.Linear(features, 64), companion.BatchNorm1d(64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    train(model, *split[:2], steps=300, batch_size=64, learning_rate=0.1, seed=seed)
    return model.eval(), split


def trained_on_digits(seed: int) -> tuple[nn.Module, data.Split]:
    """A network with two batch normalizations, 98 % right, and the data it learned from."""
    model, split = _trained(seed)
    return copy.deepcopy(model), split


def state_of(model: nn.Module) -> dict[str, Any]:
    """What a procedure that restores the model must not have changed."""
    return {
        "modes": [module.training for module in model.modules()],
        "hooks": [len(module._forward_pre_hooks) for module in model.modules()],
        "objects": [id(tensor) for tensor in (*model.buffers(), *model.parameters())],
        "gradients": [(value.requires_grad, value.grad) for value in model.parameters()],
        "values": copy.deepcopy(model.state_dict()),
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in ("modes", "hooks", "objects"):
        assert before[key] == after[key], key
    for (flag, grad), (flag_after, grad_after) in zip(
        before["gradients"], after["gradients"], strict=True
    ):
        assert flag == flag_after
        assert grad is grad_after
    for name, value in before["values"].items():
        assert torch.equal(value, after["values"][name]), name
