"""What every layer of the family owes to the layer of PyTorch's that it replaces."""

import copy
import inspect
import pickle

import pytest
import torch
from _family import MEMBERS, SHAPES
from _layer import DEVICES, HALVES

from companion import variants

ALL = pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS.keys())
TRACKING = {name: member for name, member in MEMBERS.items() if member.tracks}
BATCH_NORMS = pytest.mark.parametrize("member", TRACKING.values(), ids=TRACKING.keys())
IMAGES = {name: member for name, member in MEMBERS.items() if len(member.shape) in (4, 5)}


@ALL
def test_the_constructor_is_pytorchs_with_more_named_arguments(member):
    ours = inspect.signature(member.cls).parameters
    assert not [p for p in ours.values() if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    theirs = inspect.signature(member.torch_cls).parameters.values()
    positional = [p for p in theirs if p.kind is p.POSITIONAL_OR_KEYWORD]
    for expected, own in zip(positional, list(ours.values()), strict=False):
        assert (own.name, own.default) == (expected.name, expected.default)
    others = list(ours.values())[len(positional) :]
    assert all(p.kind is p.KEYWORD_ONLY for p in others)


@ALL
@pytest.mark.parametrize("affine", [True, False])
def test_state_dictionaries_go_both_ways(member, affine):
    switch = "elementwise_affine" if "LayerNorm" in str(member.cls) else "affine"
    ours = member.make(**{switch: affine})
    theirs = member.torch_cls(
        *member.arguments,
        **{switch: affine},
        dtype=torch.float64,
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    again = member.make(**{switch: affine})
    again.load_state_dict(theirs.state_dict(), strict=True)
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])
        assert torch.equal(value, again.state_dict()[name])
    if hasattr(ours, "alpha"):
        ours.alpha = 0.0
    x = member.batch()
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), rtol=0, atol=1e-12)


@ALL
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
@pytest.mark.parametrize("training", [True, False])
def test_copies_compute_the_same(member, copied, training):
    layer, x = member.make().train(training), member.batch()
    layer(x)
    other = copied(layer)
    assert str(other) == str(layer)
    assert torch.equal(other(x), layer(x))
    for name, value in layer.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])


@pytest.mark.parametrize("member", IMAGES.values(), ids=IMAGES.keys())
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_memory_format_is_kept(member, training, dtype):
    form = torch.channels_last if len(member.shape) == 4 else torch.channels_last_3d
    layer, plain = member.make(dtype).train(training), member.batch(dtype)
    alike = copy.deepcopy(layer)
    x = plain.contiguous(memory_format=form).requires_grad_()
    y, expected = layer(x), alike(plain)
    assert y.is_contiguous(memory_format=form)
    assert expected.is_contiguous()
    assert torch.allclose(y, expected, rtol=0, atol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    y.square().sum().backward()
    assert x.grad.is_contiguous(memory_format=form)


@ALL
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_is_rounded_at_the_end(member, dtype, training):
    # Noise is drawn in the type of computation: that one is in test_noisy.py.
    silence = {"shift_limit": 0.0, "scale_limit": 1.0, "shift_spread": 0.0, "scale_spread": 0.0}
    options = silence if "Noisy" in member.cls.__name__ else {}
    layer, x = member.make(dtype, **options).train(training), member.batch(dtype)
    exact = copy.deepcopy(layer).double()
    exact.load_state_dict(layer.state_dict())
    y, expected = layer(x), exact(x.double())
    assert y.dtype == dtype
    rounding = 2**-8 if dtype == torch.bfloat16 else 2**-11
    assert (y.double() - expected).abs().max() < 1.1 * rounding * expected.abs().max()
    for name, value in layer.state_dict().items():
        if name.startswith("running"):
            assert value.dtype == torch.float32
            assert torch.allclose(value.double(), exact.state_dict()[name], rtol=1e-6)


@BATCH_NORMS
@pytest.mark.parametrize("convert", ["half", "bfloat16"])
def test_statistics_do_not_become_half_precision(member, convert):
    layer = member.make(torch.float32)
    before = copy.deepcopy(layer.state_dict())
    getattr(layer, convert)()
    assert layer.weight.dtype == getattr(torch, {"half": "float16"}.get(convert, convert))
    for name in ("running_mean", "running_var"):
        assert torch.equal(layer.state_dict()[name], before[name])
    built = member.cls(3, dtype=torch.float16, **{k: v() for k, v in member.options.items()})
    assert built.running_var.dtype == torch.float32


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_gives_an_empty_result_and_moves_nothing(member, training):
    layer = member.make().train(training)
    before = copy.deepcopy(layer.state_dict())
    x = member.batch()[:0].requires_grad_()
    y = layer(x)
    assert y.shape == x.shape
    y.sum().backward()
    assert x.grad.shape == x.shape
    for name in ("running_mean", "running_var"):
        if name in before:
            assert torch.equal(before[name], layer.state_dict()[name])


@ALL
def test_what_cannot_be_normalized_is_refused_and_changes_nothing(member):
    layer = member.make().train()
    before = copy.deepcopy(layer.state_dict())
    shape = member.shape
    if "Frozen" not in type(layer).__name__:
        one = {"GroupNorm": (8, 2, 1), "LayerNorm": (8, 1)}.get(
            type(layer).__name__, (1 if member.tracks else 8, 3, *(1,) * (len(shape) - 2))
        )
        small = copy.deepcopy(layer)
        if type(layer).__name__ == "GroupNorm":
            small = variants.GroupNorm(2, 2).double()
        elif type(layer).__name__ == "LayerNorm":
            small = variants.LayerNorm(1).double()
        with pytest.raises(ValueError, match="expected more than 1 value"):
            small(torch.ones(one, dtype=torch.float64))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            if name in before:
                assert torch.equal(before[name], small.state_dict()[name])
    axis = -1 if type(layer).__name__ == "LayerNorm" else 1
    wrong = torch.cat([member.batch()] * 2, axis)
    with pytest.raises((RuntimeError, ValueError), match="expected"):
        layer(wrong)
    with pytest.raises((RuntimeError, ValueError), match="expected"):
        layer(torch.ones(3, dtype=torch.float64))
    for refused in ("text", member.batch().to(torch.int64)):
        with pytest.raises((TypeError, NotImplementedError), match="input: expected"):
            layer(refused)
    for name, value in before.items():
        assert torch.equal(value, layer.state_dict()[name])


@ALL
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_finite_differences(member, training):
    layer = member.make().train(training)
    if hasattr(layer, "momentum"):
        layer.momentum = 0.0
    if "BatchRenorm" in type(layer).__name__:
        # Held at a limit, r and d are constants to finite differences too.
        layer.r_max, layer.d_max = 1.001, 0.001
        layer.running_mean += 50.0
        layer.running_var += 50.0
    noisy = "Noisy" in type(layer).__name__
    start = layer.generator.get_state() if noisy else None
    names = [name for name, _ in layer.named_parameters()]

    def output(x, *parameters):
        if noisy:
            layer.generator.set_state(start)
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (x,))

    size = 7 if "Ghost" in type(layer).__name__ else 3
    inputs = (member.batch(size=size).requires_grad_(), *layer.parameters())
    assert torch.autograd.gradcheck(output, inputs, fast_mode=True)


COMPILED = ["GhostBatchNorm-2d", "BatchRenorm-2d", "ExampleWeightedBatchNorm-2d"]
COMPILED += ["FrozenBatchNorm-2d", "InstanceNorm-2d", "GroupNorm", "LayerNorm"]


def step(layer, function, x):
    x = x.clone().requires_grad_()
    y = function(x)
    y.pow(3).sum().backward()
    return y, x.grad, *(parameter.grad for parameter in layer.parameters())


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("training", [True, False])
def test_one_graph_to_the_compiler(name, training):
    torch.compiler.reset()
    layer, x = MEMBERS[name].make().train(training), MEMBERS[name].batch()
    alike = copy.deepcopy(layer)
    compiled = torch.compile(alike, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        seen, expected = step(alike, compiled, x), step(layer, layer, x)
        torch.testing.assert_close(seen, expected, rtol=1e-12, atol=1e-12)
    for key, value in layer.state_dict().items():
        assert torch.allclose(value, alike.state_dict()[key], rtol=0, atol=1e-12)


@ALL
@pytest.mark.parametrize("device", DEVICES[1:])
def test_a_device_computes_what_the_cpu_does(member, device):
    layer, x = member.make(), member.batch()
    moved = copy.deepcopy(layer).to(device)
    for training in (True, False):
        y = moved.train(training)(x.to(device))
        assert torch.allclose(y.cpu(), layer.train(training)(x), rtol=0, atol=1e-12)
    for name, value in layer.state_dict().items():
        assert torch.allclose(value, moved.state_dict()[name].cpu(), rtol=0, atol=1e-12)


def test_every_layer_of_the_family_is_here():
    tested = {member.cls.__name__ for member in MEMBERS.values()}
    own = ("Domain", "Masked", "Decorrelated", "IterNorm", "Recurrent", "Sync")
    layers = {
        name
        for name in variants.__all__
        if name.endswith(("Norm", "1d", "2d", "3d")) and not name.startswith(own)
    }
    assert layers - {"WeightNorm", "FrozenBatchNorm"} == tested
    assert len(SHAPES) == 4


@pytest.mark.parametrize("name", variants.__all__)
def test_every_public_name_has_an_example(name):
    assert "Examples\n    --------\n" in inspect.getdoc(getattr(variants, name)).replace(
        "\nExamples\n--------\n", "\nExamples\n    --------\n"
    )
    assert ">>> " in getattr(variants, name).__doc__
