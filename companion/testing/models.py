"""What turns a model into another that is to compute the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from companion.exercises.exercise import Case
from companion.exercises.properties import SAME_MODES, SAME_OUTPUTS
from companion.inference import fold
from companion.variants import convert_sync

from .formulas import normal
from .operation import Operation


class _WithReLU(nn.BatchNorm2d):
    """A subclass that does more, as other libraries have it."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(super().forward(input))


def _trained(norm: nn.Module) -> nn.Module:
    """With other statistics and parameters than a fresh layer."""
    values = torch.tensor([0.5, -1.0, 2.0, 1.5], dtype=torch.float64)
    state = {"running_mean": values, "running_var": values**2, "weight": -values, "bias": values}
    norm.load_state_dict(state, strict=False)
    return norm


# --- conversion ----------------------------------------------------------------------------------


def _conversion_cases() -> Iterator[Case]:
    plain, other = (_trained(nn.BatchNorm2d(4).double()) for _ in range(2))
    active, x = _trained(_WithReLU(4).double()), normal(2, 4, 3, 3)
    yield Case("a ReLU in a layer's forward", (nn.Sequential(plain, active), x))
    yield Case("one layer in evaluation mode", (nn.Sequential(plain, other.eval()), x))


def _converted(convert: Callable[..., Any], model: nn.Module, x: Tensor) -> tuple[Any, Any]:
    model = convert(model)
    modes = [each.training for each in model.modules() if hasattr(each, "running_mean")]
    return model.eval()(x), modes


CONVERSION = Operation(
    call="f(model) -> model, of other layers",
    cases=_conversion_cases,
    properties=(SAME_OUTPUTS.of(0), SAME_MODES.of(1)),
    own=convert_sync,
    run=_converted,
)


# --- folding -------------------------------------------------------------------------------------


def _folding_cases() -> Iterator[Case]:
    x = normal(2, 4, 5, 5)
    layers = {
        "a convolution with a bias": nn.Conv2d(4, 4, 3),
        "one without": nn.Conv2d(4, 4, 3, bias=False),
        "a transposed convolution": nn.ConvTranspose2d(4, 4, 3, bias=False),
        "a transposed convolution in two groups": nn.ConvTranspose2d(4, 4, 3, groups=2),
    }
    for what, layer in layers.items():
        for parameter in layer.parameters():
            parameter.data = normal(*parameter.shape, seed=1)
        yield Case(what, (nn.Sequential(layer, _trained(nn.BatchNorm2d(4))).double().eval(), x))


def _folded(folding: Callable[..., nn.Module], model: nn.Sequential, x: Tensor) -> Tensor:
    result: Tensor = folding(model[0], model[1])(x)
    return result


def _fold(layer: nn.Module, norm: nn.Module) -> nn.Module:
    return fold(nn.Sequential(layer, norm), normal(2, 4, 5, 5))[0]


FOLDING = Operation(
    call="f(layer, norm) -> layer, equal to norm(layer(x))",
    cases=_folding_cases,
    properties=(SAME_OUTPUTS,),
    own=_fold,
    run=_folded,
)
