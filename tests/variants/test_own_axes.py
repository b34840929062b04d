"""Group, layer and instance normalization: statistics over axes of one example."""

import pytest
import torch
from _family import batch
from _layer import HALVES, layouts, relative_error
from torch.nn import functional as F

from companion import reference
from companion.variants import (
    GhostBatchNorm2d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    group_norm,
    instance_norm,
    layer_norm,
)

SHAPES = [(5, 6), (5, 6, 7), (5, 6, 3, 4), (5, 6, 2, 3, 2)]
SPATIAL = SHAPES[1:]


def parameters(shape):
    generator = torch.Generator().manual_seed(4)
    weight = torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5
    return weight, torch.randn(shape, generator=generator, dtype=torch.float64)


def per_channel(value, ndim):
    return value.double().numpy().reshape(1, -1, *(1,) * (ndim - 2))


def group_oracle(x, groups, weight, bias, eps=1e-5):
    array = x.double().numpy()
    grouped = array.reshape(len(array), groups, -1)
    x_hat = reference.forward(grouped, eps=eps, axes=(2,)).x_hat.reshape(array.shape)
    return x_hat * per_channel(weight, x.ndim) + per_channel(bias, x.ndim)


def layer_oracle(x, shape, weight, bias, eps=1e-5):
    axes = range(x.ndim - len(shape), x.ndim)
    x_hat = reference.forward(x.double().numpy(), eps=eps, axes=axes).x_hat
    return x_hat * weight.double().numpy() + bias.double().numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_group_norm_against_the_oracle_and_pytorch(shape, groups):
    x, (weight, bias) = batch(shape), parameters(6)
    for layout in layouts(x).values():
        y = group_norm(layout, groups, weight, bias)
        assert relative_error(y, group_oracle(x, groups, weight, bias)) < 1e-13
        assert torch.allclose(y, F.group_norm(x, groups, weight, bias), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [1, 2])
def test_layer_norm_against_the_oracle_and_pytorch(shape, count):
    last = shape[-count:]
    x, (weight, bias) = batch((2, *shape)), parameters(last)
    y = layer_norm(x, last, weight, bias)
    assert relative_error(y, layer_oracle(x, last, weight, bias)) < 1e-13
    assert torch.allclose(y, F.layer_norm(x, last, weight, bias), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SPATIAL)
def test_instance_norm_against_the_oracle_and_pytorch(shape):
    x, (weight, bias) = batch(shape), parameters(6)
    for layout in layouts(x).values():
        y = instance_norm(layout, weight, bias)
        assert relative_error(y, group_oracle(x, 6, weight, bias)) < 1e-13
        expected = F.instance_norm(x, weight=weight, bias=bias)
        assert torch.allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_group_is_layer_norm_over_channels_and_positions(shape):
    x, one = batch(shape), torch.ones(6, dtype=torch.float64)
    assert torch.allclose(group_norm(x, 1), layer_norm(x, shape[1:]), rtol=0, atol=1e-12)
    # Per-channel parameters are layer normalization's, repeated over positions.
    weight, bias = parameters(6)
    wide = [
        (value.view(-1, *(1,) * (len(shape) - 2)) * one[0]).expand(shape[1:]).contiguous()
        for value in (weight, bias)
    ]
    y, expected = group_norm(x, 1, weight, bias), layer_norm(x, shape[1:], *wide)
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SPATIAL)
def test_a_group_per_channel_is_instance_norm(shape):
    x, (weight, bias) = batch(shape), parameters(6)
    y, expected = group_norm(x, 6, weight, bias), instance_norm(x, weight, bias)
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)


def test_ghost_batches_of_one_image_are_instance_norm():
    ghost = GhostBatchNorm2d(6, ghost_size=1, dtype=torch.float64)
    x = batch((5, 6, 3, 4))
    assert torch.allclose(ghost(x), instance_norm(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_every_type_is_rounded_once(dtype):
    x = batch((5, 6, 3, 4), dtype)
    weight, bias = (value.float() for value in parameters(6))
    wide = [value.view(6, 1, 1).expand(6, 3, 4).contiguous() for value in (weight, bias)]
    rounding = {torch.float32: 2**-24, torch.bfloat16: 2**-8, torch.float16: 2**-11}[dtype]
    for y, exact in (
        (group_norm(x, 2, weight, bias), group_oracle(x, 2, weight, bias)),
        (instance_norm(x, weight, bias), group_oracle(x, 6, weight, bias)),
        (layer_norm(x, (6, 3, 4), *wide), layer_oracle(x, (6, 3, 4), *wide)),
    ):
        assert y.dtype == dtype
        assert relative_error(y, exact) < 1.01 * rounding


@pytest.mark.parametrize("offset", [1e4, 1e6])
def test_an_offset_costs_less_than_in_pytorch(offset):
    # The pain: float32 statistics of data far from 0.
    x = (batch((8, 6, 16, 16)) + offset).float()
    one, zero = torch.ones(6), torch.zeros(6)
    shape = (6, 16, 16)
    for ours, theirs, exact in (
        (group_norm(x, 2), F.group_norm(x, 2), group_oracle(x, 2, one, zero)),
        (instance_norm(x), F.instance_norm(x), group_oracle(x, 6, one, zero)),
        (
            layer_norm(x, shape),
            F.layer_norm(x, shape),
            layer_oracle(x, shape, torch.ones(shape), torch.zeros(shape)),
        ),
    ):
        assert relative_error(ours, exact) < 1e-7
        assert relative_error(theirs, exact) > 1e-6


def test_gradients_are_the_oracles():
    x, grad_y = batch((5, 6, 3, 4)).requires_grad_(), batch((5, 6, 3, 4), seed=2)
    grouped = x.detach().numpy().reshape(5, 2, -1)
    plain = reference.forward(grouped, axes=(2,))
    weight, bias = (value.requires_grad_() for value in parameters(6))
    grads = torch.autograd.grad(group_norm(x, 2, weight, bias), (x, weight, bias), grad_y)
    upstream = grad_y.numpy() * per_channel(weight.detach(), 4)
    exact = reference.backward(upstream.reshape(5, 2, -1), plain).x.reshape(x.shape)
    x_hat = plain.x_hat.reshape(x.shape)
    assert relative_error(grads[0], exact) < 1e-12
    assert relative_error(grads[1], (grad_y.numpy() * x_hat).sum((0, 2, 3))) < 1e-12
    assert relative_error(grads[2], grad_y.numpy().sum((0, 2, 3))) < 1e-12


@pytest.mark.parametrize(
    "function",
    [
        lambda x: group_norm(x, 2),
        lambda x: layer_norm(x, x.shape[1:]),
        instance_norm,
    ],
)
def test_second_derivatives(function):
    x = batch((2, 4, 3)).requires_grad_()
    assert torch.autograd.gradgradcheck(function, x, fast_mode=True)


@pytest.mark.parametrize("held", ["weight", "bias"])
def test_a_layer_pruned_by_hand_has_as_many_channels_as_its_one_parameter(held):
    layer = GroupNorm(2, 6).double()
    layer.weight = layer.bias = None
    value = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64))
    setattr(layer, held, value)
    x = batch((5, 4, 3))
    assert torch.equal(layer(x), group_norm(x, 2, **{held: value}))
    with pytest.raises(ValueError, match="input: expected 4 channels in dimension 1, got 6"):
        layer(batch((5, 6, 3)))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (InstanceNorm1d(6), (6, 7)),
        (InstanceNorm2d(6), (6, 3, 4)),
        (InstanceNorm3d(6), (6, 2, 3, 2)),
    ],
)
def test_instance_norm_without_the_batch_axis(layer, shape):
    x = batch(shape)
    assert torch.equal(layer(x), layer(x[None])[0])
    assert layer(x).flatten(1).mean(1).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: group_norm(torch.ones(2, 6), 4),
            "num_groups: expected a divisor of the 6 channel",
        ),
        (
            lambda: group_norm(torch.ones(2, 6), 0),
            "num_groups: expected a divisor of the 6 channel",
        ),
        (
            lambda: group_norm(torch.ones(2, 6), 6),
            "input: expected more than 1 value behind each m",
        ),
        (
            lambda: group_norm(torch.ones(2, 6), 2, torch.ones(5)),
            r"weight: expected shape \(6,\), got \(5,\)",
        ),
        (lambda: group_norm(torch.ones(2, 6), 2, eps=0.0), "eps: expected a positive number, got"),
        (lambda: group_norm(torch.ones(6), 2), r"input: expected at least 2 dimensions \(N, C"),
        (
            lambda: GroupNorm(2, 6)(torch.ones(2, 4)),
            "input: expected 6 channels in dimension 1, got 4",
        ),
        (
            lambda: layer_norm(torch.ones(2, 6), [5]),
            r"normalized_shape: expected the sizes .* \(5,\)",
        ),
        (
            lambda: layer_norm(torch.ones(2, 6), []),
            "normalized_shape: expected the sizes of the last",
        ),
        (
            lambda: layer_norm(torch.ones(2, 1), [1]),
            "input: expected more than 1 value behind each m",
        ),
        (
            lambda: layer_norm(torch.ones(2, 6), [6], None, torch.ones(2)),
            r"bias: expected shape \(6,\), got \(2,\)",
        ),
        (
            lambda: LayerNorm(6)(torch.ones(2, 4)),
            "normalized_shape: expected the sizes of the last",
        ),
        (lambda: instance_norm(torch.ones(2, 6)), "input: expected at least 3 dimensions"),
        (
            lambda: instance_norm(torch.ones(2, 6, 1)),
            "input: expected more than 1 value behind each",
        ),
        (
            lambda: InstanceNorm2d(6)(torch.ones(2, 6)),
            r"input: expected dimensions 3 \(C, H, W\) or 4 \(N, C, H, W\), got 2: \(2, 6\)",
        ),
        (
            lambda: InstanceNorm1d(6)(torch.ones(5, 4)),
            r"input: expected 6 channels in dimension 0, got 5",
        ),
        (
            lambda: InstanceNorm1d(6, track_running_stats=True),
            "track_running_stats: expected False, got True",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_input_of_another_kind_is_refused():
    for function in (lambda x: group_norm(x, 2), lambda x: layer_norm(x, [6]), instance_norm):
        with pytest.raises(
            TypeError, match="input: expected float16, bfloat16, float32 or float64"
        ):
            function(torch.ones(2, 6, 6, dtype=torch.int64))
        with pytest.raises(TypeError, match="input: expected a tensor, got list"):
            function([1.0])
