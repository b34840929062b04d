"""The three pure functions: their composition is batch_norm, and every transform takes them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacfwd, jacrev, stack_module_state, vmap

import companion
from companion import functional, reference
from companion.stages import (
    BatchNormState,
    batch_norm_apply,
    batch_norm_stats,
    batch_norm_update,
)

SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 4)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


def inputs(shape, dtype=torch.float64, device="cpu", offset=3.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + offset
    weight = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    return x.to(device, dtype), weight.to(device, wide), bias.to(device, wide)


def fresh(channels, dtype=torch.float64, device="cpu"):
    mean = torch.linspace(0.0, 1.0, channels, dtype=dtype, device=device)
    return BatchNormState(mean, mean + 1.0, torch.tensor(2, device=device))


def composed(x, weight, bias, state, momentum=0.1, eps=1e-5):
    count, mean, var = batch_norm_stats(x)
    y = batch_norm_apply(x, mean, var, weight, bias, eps)
    return y, batch_norm_update(state, count, mean.detach(), var.detach(), momentum)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("momentum", [0.1, None, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_composition_is_batch_norm(shape, dtype, momentum, device):
    x, weight, bias = (value.requires_grad_() for value in inputs(shape, dtype, device))
    wide = weight.dtype
    state, theirs = fresh(shape[1], wide, device), fresh(shape[1], wide, device)
    y, new = composed(x, weight, bias, state, momentum)
    running = (theirs.running_mean, theirs.running_var)
    options = {"num_batches_tracked": theirs.num_batches_tracked, "backend": "eager"}
    want = functional.batch_norm(x, *running, weight, bias, True, momentum, 1e-5, **options)
    assert y.dtype == x.dtype
    assert torch.equal(y, want)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64).to(y)
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2}[dtype]
    leaves = (x, weight, bias)
    pairs = zip(
        torch.autograd.grad(y, leaves, upstream),
        torch.autograd.grad(want, leaves, upstream),
        strict=True,
    )
    for got, expected in pairs:
        assert torch.allclose(got, expected, rtol=0, atol=tolerance * expected.abs().max().item())
    for got, expected in zip(new, theirs, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_against_the_oracle_with_an_offset(shape):
    x, weight, bias = inputs(shape, offset=1e6)
    count, mean, var = batch_norm_stats(x)
    batch = reference.forward(x.numpy(), weight.numpy(), bias.numpy())
    assert count == batch.m
    np.testing.assert_allclose(mean, batch.batch_mean.ravel(), rtol=1e-14)
    np.testing.assert_allclose(var, batch.batch_var.ravel(), rtol=1e-9)
    y = batch_norm_apply(x, mean, var, weight, bias)
    np.testing.assert_allclose(y, batch.y, rtol=0, atol=1e-8)


def test_fixed_statistics_are_inference():
    x, weight, bias = inputs((4, 3, 5))
    state = fresh(3)
    y = batch_norm_apply(x, state.running_mean, state.running_var, weight, bias)
    want = functional.batch_norm(x, state.running_mean, state.running_var, weight, bias)
    assert torch.allclose(y, want, rtol=0, atol=1e-14)


def test_nothing_is_changed_in_place():
    x, weight, bias = inputs((4, 3, 5))
    state = fresh(3)
    before = copy.deepcopy((x, weight, bias, *state))
    composed(x, weight, bias, state)
    for was, now in zip(before, (x, weight, bias, *state), strict=True):
        assert torch.equal(was, now)


def test_derivatives_of_each_function():
    x, weight, bias = (value.requires_grad_() for value in inputs((4, 3, 2)))
    mean, var = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    state = fresh(3)
    assert torch.autograd.gradcheck(lambda x: batch_norm_stats(x)[1:], (x,))
    assert torch.autograd.gradgradcheck(lambda x: batch_norm_stats(x)[1:], (x,))
    assert torch.autograd.gradcheck(batch_norm_apply, (x, mean, var, weight, bias))
    assert torch.autograd.gradgradcheck(batch_norm_apply, (x, mean, var, weight, bias))
    assert torch.autograd.gradcheck(
        lambda mean, var: batch_norm_update(state, 8, mean, var)[:2], (mean, var)
    )


def test_jacobians_of_the_composition_are_the_oracles():
    x, weight, bias = inputs((5, 2))

    def normalized(x):
        return composed(x, weight, bias, fresh(2))[0]

    batch = reference.forward(x.numpy(), weight.numpy(), bias.numpy())
    for transform in (jacrev, jacfwd):
        jacobian = transform(normalized)(x)
        for j in range(5):
            for c in range(2):
                g = np.zeros((5, 2))
                g[j, c] = 1.0
                row = reference.backward(g, batch).x
                np.testing.assert_allclose(jacobian[j, c], row, rtol=0, atol=1e-12)
    hessian = jacrev(jacrev(lambda x: normalized(x).pow(3).sum()))(x)
    other = jacfwd(jacfwd(lambda x: normalized(x).pow(3).sum()))(x)
    assert torch.allclose(hessian, other, rtol=0, atol=1e-10)


def test_a_gradient_that_also_returns_the_new_state():
    x, weight, bias = inputs((6, 3))
    upstream = torch.linspace(-1, 1, 18, dtype=torch.float64).view(6, 3)

    def loss(x, state):
        y, new = composed(x, weight, bias, state)
        return (y * upstream).sum(), new

    gradient, new = grad(loss, has_aux=True)(x, fresh(3))
    batch = reference.forward(x.numpy(), weight.numpy(), bias.numpy())
    np.testing.assert_allclose(gradient, reference.backward(upstream.numpy(), batch).x, atol=1e-12)
    assert new.num_batches_tracked == 3
    expected = 0.9 * fresh(3).running_var + 0.1 * x.var(dim=0)
    assert torch.allclose(new.running_var, expected, rtol=0, atol=1e-14)


class Stateless(nn.Module):
    """A network whose normalization takes its running statistics and returns new ones."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 1)
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x, state):
        y, new = composed(self.first(x), self.weight, self.bias, state)
        return self.last(y.relu()), new


def ensemble(size):
    torch.manual_seed(0)
    return [Stateless().double() for _ in range(size)]


@pytest.mark.parametrize("momentum_shared", [True, False])
def test_an_ensemble_by_vmap_and_functional_call(momentum_shared):
    models = ensemble(5)
    parameters, _ = stack_module_state(models)
    x = torch.randn(5, 7, 4, dtype=torch.float64)
    if momentum_shared:
        states = fresh(3)
        axes = None
    else:
        states = BatchNormState(
            *(torch.stack([value + 0.1 * k for k in range(5)]) for value in fresh(3)[:2]),
            torch.arange(5),
        )
        axes = 0
    skeleton = ensemble(1)[0]

    def loss(parameters, x, state):
        y, new = functional_call(skeleton, parameters, (x, state))
        return y.square().sum(), new

    got, new = vmap(grad(loss, has_aux=True), in_dims=(0, 0, axes))(parameters, x, states)
    for k, model in enumerate(models):
        layer = companion.BatchNorm1d(3, backend="eager", dtype=torch.float64)
        alone = BatchNormState(*(value if axes is None else value[k] for value in states))
        layer.load_state_dict({**layer.state_dict(), **alone._asdict()})
        y = model.last(layer(model.first(x[k])).relu())
        y.square().sum().backward()
        assert torch.allclose(got["first.weight"][k], model.first.weight.grad, rtol=0, atol=1e-10)
        assert torch.allclose(got["weight"][k], layer.weight.grad, rtol=0, atol=1e-11)
        assert torch.allclose(new.running_mean[k], layer.running_mean, rtol=0, atol=1e-14)
        assert torch.allclose(new.running_var[k], layer.running_var, rtol=0, atol=1e-14)
        assert new.num_batches_tracked[k] == layer.num_batches_tracked


def test_what_pytorchs_layer_answers_to_vmap():
    # The complaint of pytorch/functorch#273.
    models = [nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)) for _ in range(5)]
    parameters, _ = stack_module_state(models)
    with pytest.raises(RuntimeError, match=r"running_mean|running_var|in-?place"):
        vmap(lambda p, x: functional_call(models[0], p, (x,)))(parameters, torch.randn(5, 7, 4))


def test_training_step_by_step_is_the_layers():
    layer = companion.BatchNorm1d(3, dtype=torch.float64, backend="eager")
    state = BatchNormState(
        *(b.clone() for b in (layer.running_mean, layer.running_var)), torch.tensor(0)
    )
    for seed in range(20):
        x = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        layer(x)
        _, state = composed(x, None, None, state)
    for name, value in state._asdict().items():
        assert torch.equal(value, getattr(layer, name)), name


def test_a_compiled_composition():
    x, weight, bias = inputs((4, 3, 5))
    state = fresh(3)
    y, new = torch.compile(composed, backend="eager", fullgraph=True)(x, weight, bias, state)
    want, state = composed(x, weight, bias, state)
    assert torch.allclose(y, want, rtol=0, atol=1e-14)
    assert torch.allclose(new.running_var, state.running_var, rtol=0, atol=1e-14)


def test_errors_name_the_argument():
    x, mean = torch.zeros(4, 3), torch.zeros(3)
    with pytest.raises(ValueError, match=r"x: expected \(N, C, \.\.\.\), got shape \(4,\)"):
        batch_norm_stats(torch.zeros(4))
    with pytest.raises(ValueError, match="x: expected at least one value per channel, got shape"):
        batch_norm_stats(torch.zeros(0, 3))
    with pytest.raises(TypeError, match=r"x: expected floating-point numbers, got torch\.int64"):
        batch_norm_stats(torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"x: expected \(N, C, \.\.\.\), got shape \(3,\)"):
        batch_norm_apply(mean, mean, mean)
    for name in ("mean", "var", "weight", "bias"):
        given = {"mean": mean, "var": mean, name: torch.zeros(2)}
        with pytest.raises(ValueError, match=rf"{name}: expected shape \(3,\), got \(2,\)"):
            batch_norm_apply(x, **given)
        given[name] = torch.zeros(3, dtype=torch.int32)
        with pytest.raises(TypeError, match=rf"{name}: expected floating-point.*got torch\.int32"):
            batch_norm_apply(x, **given)
    with pytest.raises(ValueError, match=r"eps: expected a number not below 0, got -1\.0"):
        batch_norm_apply(x, mean, mean, eps=-1.0)
    with pytest.raises(ValueError, match="count: expected at least 2 values, got 1"):
        batch_norm_update(fresh(3), 1, mean, mean)
    with pytest.raises(ValueError, match=r"var: expected shape \(3,\), got \(1,\)"):
        batch_norm_update(fresh(3), 4, mean, torch.zeros(1))
