"""How people call layers: each a way to wrap one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from _ways import WAYS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Called"]

# --- called ---

Call = Callable[[nn.Module, Tensor], Any]


class Called(nn.Module):
    """A layer that is called in some way."""

    def __init__(self, layer: nn.Module, call: Call) -> None:
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Any:
        return self.call(self.layer, x)


def calling(name: str, call: Call) -> None:
    WAYS[name] = lambda side: Called(side.make(), call)


def functional(layer, x):
    parameters = {name: value * 2 for name, value in layer.named_parameters()}
    buffers = {name: value.clone() for name, value in layer.named_buffers()}
    return torch.func.functional_call(layer, parameters | buffers, (x,))


def stacked(layer, x):
    layers = [copy.deepcopy(layer) for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(layers)
    base = copy.deepcopy(layers[0]).to("meta")

    def call(parameters, buffers):
        return torch.func.functional_call(base, (parameters, buffers), (x,))

    return torch.func.vmap(call)(parameters, buffers)


def in_inference_mode(layer, x):
    with torch.inference_mode():
        return layer(x)


def without_grad(layer, x):
    with torch.no_grad():
        return layer(x)


def under_autocast(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


def of_lower_type_under_autocast(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x.bfloat16())


def checkpointed(layer, x):
    return checkpoint(layer, x, use_reentrant=False)


def double_backward(layer, x):
    y = layer(x)
    if not x.requires_grad:
        return y
    (grad,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    return grad


def forward_mode(layer, x):
    return torch.func.jvp(lambda x: functional(layer, x), (x.detach(),), (x.detach() * 2 + 1,))[1]


def per_sample(layer, x):
    def loss(x):
        return functional(layer, x[None]).sum()

    return torch.func.vmap(torch.func.grad(loss))(x.detach())


calling("functionally", functional)
calling("stacked", stacked)
calling("in_inference_mode", in_inference_mode)
calling("without_grad", without_grad)
calling("under_autocast", under_autocast)
calling("of_lower_type_under_autocast", of_lower_type_under_autocast)
calling("checkpointed", checkpointed)
calling("twice", lambda layer, x: layer(layer(x)))
calling("with_double_backward", double_backward)
calling("in_forward_mode", forward_mode)
calling("by_keyword_input", lambda layer, x: layer(input=x))
calling("as_a_method", lambda layer, x: layer.forward(x))
calling("of_the_class", lambda layer, x: type(layer).forward(layer, x))
calling("on_an_output_changed", lambda layer, x: layer(x) * 2)
calling("on_an_output_changed_in_place", lambda layer, x: layer(x).mul_(2))
calling("with_a_detached_input", lambda layer, x: layer(x.detach()))
calling("with_a_view", lambda layer, x: layer(x.view(x.shape).clone()[:]))
calling("on_a_parameter", lambda layer, x: layer(nn.Parameter(x.detach())))
calling("without_an_input", lambda layer, _: layer())
calling("with_two_inputs_too_many", lambda layer, x: layer(x, x, x))
calling("with_none", lambda layer, _: layer(None))
calling("with_a_number", lambda layer, _: layer(1.0))
calling("with_an_array", lambda layer, x: layer(x.detach().numpy()))


def symbolically_traced(layer, x):
    return torch.fx.symbolic_trace(nn.Sequential(layer))(x)


calling("symbolically_traced", symbolically_traced)


def split(layer, x):
    return torch.cat([layer(part) for part in (x[:2], x[2:])])


calling("in_micro_batches", split)
