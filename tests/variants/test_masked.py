"""Masked batch normalization against batch normalization of the packed valid values."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import companion
from companion import functional, reference
from companion.contexts import accumulated_statistics
from companion.statistics import update_precise
from companion.variants.masked import MaskedBatchNorm1d, MaskedBatchNorm2d, masked_batch_norm

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
SHAPES = [(9, 3), (5, 3, 7), (3, 3, 4, 5), (2, 3, 3, 2, 4)]
HALVES = (torch.float16, torch.bfloat16)


def case(shape, dtype=torch.float64, device="cpu", valid=0.6, offset=3.0):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator, dtype=torch.float64) + offset
    mask = torch.rand(shape[0], *shape[2:], generator=generator) < valid
    mask.view(-1)[:2] = True
    weight = torch.rand(shape[1], generator=generator, dtype=torch.float64) + 0.5
    bias = torch.randn(shape[1], generator=generator, dtype=torch.float64)
    wide = torch.float32 if dtype in HALVES else dtype
    return x.to(device, dtype), mask.to(device), weight.to(device, wide), bias.to(device, wide)


def pack(x, mask):
    return x.movedim(1, -1)[mask]


def unpack(packed, x, mask):
    whole = torch.zeros_like(x.movedim(1, -1))
    whole[mask] = packed
    return whole.movedim(-1, 1)


def statistics_of(x, weight):
    mean = torch.linspace(0.0, 1.0, x.shape[1], dtype=weight.dtype, device=x.device)
    return mean, mean + 1.0, torch.tensor(2, device=x.device)


def call(function, x, weight, bias, training=True, momentum=0.1):
    mean, var, count = statistics_of(x, weight)
    y = function(
        *(mean, var, weight, bias, training, momentum), num_batches_tracked=count, backend="eager"
    )
    return y, (mean, var, count)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_batch_norm_of_the_packed_values(shape, dtype, training, device):
    x, mask, weight, bias = case(shape, dtype, device)
    leaves = [value.clone().requires_grad_() for value in (x, weight, bias)]
    packed = [value.requires_grad_() for value in (pack(x, mask), weight.clone(), bias.clone())]
    y, running = call(
        lambda *args, **options: masked_batch_norm(leaves[0], mask, *args, **options),
        *leaves,
        training=training,
    )
    want, theirs = call(
        lambda *args, **options: functional.batch_norm(packed[0], *args, **options),
        *packed,
        training=training,
    )
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    assert y.dtype == dtype
    assert torch.allclose(y, unpack(want, x, mask), rtol=0, atol=tolerance)
    assert (y.movedim(1, -1)[~mask] == 0).all()
    for got, expected in zip(running, theirs, strict=True):
        assert torch.equal(got, expected)
    generator = torch.Generator().manual_seed(1)
    upstream = torch.randn(shape, generator=generator, dtype=torch.float64).to(y)
    got = torch.autograd.grad(y, leaves, upstream)
    expected = torch.autograd.grad(want, packed, pack(upstream, mask))
    assert torch.allclose(got[0], unpack(expected[0], x, mask), rtol=0, atol=tolerance)
    assert (got[0].movedim(1, -1)[~mask] == 0).all()
    for a, b in zip(got[1:], expected[1:], strict=True):
        assert torch.allclose(a, b, rtol=0, atol=tolerance * max(1.0, b.abs().max().item()))


@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_oracle_with_an_offset_in_single_precision(shape):
    x, mask, weight, bias = case(shape, torch.float32, offset=1e4)
    mean, var = torch.zeros(3), torch.ones(3)
    y = masked_batch_norm(x, mask, mean, var, weight, bias, True, 1.0)
    batch = reference.forward(pack(x, mask).numpy(), weight.numpy(), bias.numpy())
    assert np.abs(pack(y, mask).numpy() - batch.y).max() < 1e-5
    np.testing.assert_allclose(mean, batch.batch_mean.ravel(), rtol=1e-7)
    np.testing.assert_allclose(var, batch.batch_var.ravel() * batch.m / (batch.m - 1), rtol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 2), (3, 2, 4), (2, 2, 2, 3)])
def test_first_and_second_derivatives(shape, training):
    x, mask, weight, bias = case(shape)
    statistics = (None, None) if training else (weight - 0.3, weight + 0.2)

    def normalize(x, weight, bias):
        return masked_batch_norm(x, mask, *statistics, weight, bias, training)

    leaves = [value[:2].clone() if value.ndim == 1 else value for value in (x, weight, bias)]
    leaves = [value.requires_grad_() for value in leaves]
    assert torch.autograd.gradcheck(normalize, leaves)
    assert torch.autograd.gradgradcheck(normalize, leaves)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("training", [True, False])
def test_what_is_masked_has_no_effect_at_all(training, bad):
    x, mask, weight, bias = case((5, 3, 7))
    everywhere = mask[:, None].expand_as(x)
    spoilt = torch.where(everywhere, x, bad)
    results = []
    for values in (x, spoilt):
        leaves = [value.clone().requires_grad_() for value in (values, weight, bias)]
        y, running = call(
            lambda *args, values=leaves[0], **options: masked_batch_norm(
                values, mask, *args, **options
            ),
            *leaves,
            training=training,
        )
        # What comes back for masked outputs has no effect either.
        upstream = torch.where(everywhere, y.detach(), bad)
        results.append((y, *running, *torch.autograd.grad(y, leaves, upstream)))
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)


def test_padding_moves_pytorchs_statistics_and_not_these():
    # The complaint of pytorch/pytorch#70529: sequences of 10 and of 2, padded with zeros.
    torch.manual_seed(0)
    x = 5.0 + torch.randn(2, 3, 10, dtype=torch.float64)
    mask = torch.arange(10) < torch.tensor([[10], [2]])
    x = x * mask[:, None]
    theirs, ours = (cls(3, momentum=1.0).double() for cls in (nn.BatchNorm1d, MaskedBatchNorm1d))
    y, padded = ours(x, mask=mask), theirs(x)
    valid = pack(x, mask)
    assert torch.allclose(ours.running_mean, valid.mean(dim=0), rtol=0, atol=1e-13)
    assert torch.allclose(ours.running_var, valid.var(dim=0), rtol=0, atol=1e-12)
    assert (theirs.running_mean - valid.mean(dim=0)).abs().min() > 1.5
    assert (theirs.running_var / valid.var(dim=0)).min() > 3.0
    # And the longer the padding, the more; these do not see it.
    longer = torch.cat([x, torch.zeros(2, 3, 90, dtype=torch.float64)], dim=2)
    wider = torch.cat([mask, torch.zeros(2, 90, dtype=torch.bool)], dim=1)
    assert torch.allclose(ours(longer, mask=wider)[:, :, :10], y, rtol=0, atol=1e-12)
    assert (theirs(longer)[0, :, :10] - padded[0]).abs().max() > 1.0


def test_masks_that_repeat():
    x, _, _, _ = case((4, 3, 5))
    rows, columns = torch.tensor([True, False, True, True]), torch.arange(5) < 3
    for mask in (rows[:, None], columns[None], rows[:, None] & columns, columns[None, None]):
        full = mask.squeeze(1) if mask.ndim == 3 else mask
        full = full.expand(4, 5)
        y = masked_batch_norm(x, mask, None, None, training=True)
        packed = functional.batch_norm(pack(x, full), None, None, training=True)
        assert torch.allclose(y, unpack(packed, x, full), rtol=0, atol=1e-13)
    channel = masked_batch_norm(x, full[:, None], None, None, training=True)
    assert torch.equal(channel, y)


@pytest.mark.parametrize("training", [True, False])
def test_a_mask_of_all_positions_is_batch_normalization(training):
    x, _, _, _ = case((4, 3, 5))
    masked = MaskedBatchNorm1d(3, dtype=torch.float64).train(training)
    plain = companion.BatchNorm1d(3, dtype=torch.float64).train(training)
    y = plain(x)
    assert torch.allclose(masked(x, mask=torch.ones(4, 5, dtype=torch.bool)), y, atol=1e-13)
    masked.load_state_dict(plain.state_dict())
    plain(x)
    masked(x)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, masked.state_dict()[name])


@pytest.mark.parametrize("training", [True, False])
def test_the_memory_format_is_kept(training):
    x, mask, weight, bias = case((3, 3, 4, 5))
    for form in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=form)
        y = masked_batch_norm(given, mask, weight, weight, weight, bias, training)
        assert y.is_contiguous(memory_format=form)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (MaskedBatchNorm1d, (6, 3)),
        (MaskedBatchNorm1d, (6, 3, 4)),
        (MaskedBatchNorm2d, (6, 3, 2, 4)),
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"affine": False}, {"track_running_stats": False}, {"momentum": None}]
)
def test_the_layers(layer, shape, options):
    x, mask, _, _ = case(shape)
    model = layer(3, dtype=torch.float64, **options)
    plain = companion.BatchNorm1d(3, dtype=torch.float64, **options)
    for _ in range(2):
        y, packed = model(x, mask=mask), plain(pack(x, mask))
        assert torch.allclose(y, unpack(packed, x, mask), rtol=0, atol=1e-12)
    for name, value in plain.state_dict().items():
        assert torch.allclose(value, model.state_dict()[name], rtol=0, atol=1e-13), name
    y, packed = model.eval()(x, mask), plain.eval()(pack(x, mask))
    assert torch.allclose(y, unpack(packed, x, mask), rtol=0, atol=1e-12)
    assert torch.equal(copy.deepcopy(model)(x, mask), y)


def test_recalibration_and_accumulation_respect_the_mask():
    x, mask, _, _ = case((6, 3, 4))
    parts = [{"x": a, "mask": b} for a, b in zip(x.split([1, 5]), mask.split([1, 5]), strict=True)]
    valid = pack(x, mask)
    precise, gathered = (MaskedBatchNorm1d(3, dtype=torch.float64, momentum=1.0) for _ in range(2))
    update_precise(
        precise,
        parts,
        forward=lambda model, item: model(input=item["x"], mask=item["mask"]),
        progress=False,
    )
    with accumulated_statistics(gathered):
        for part in parts:
            gathered(part["x"], mask=part["mask"])
    for model in (precise, gathered):
        assert torch.allclose(model.running_mean, valid.mean(dim=0), rtol=0, atol=1e-13)
        assert torch.allclose(model.running_var, valid.var(dim=0), rtol=1e-12, atol=0)


def test_a_valid_value_that_is_not_finite_can_be_skipped():
    x, mask, _, _ = case((6, 3, 4))
    x[mask.nonzero()[0][0], 1, mask.nonzero()[0][1]] = float("nan")
    model = MaskedBatchNorm1d(3, dtype=torch.float64, skip_nonfinite=True)
    y = model(x, mask=mask)
    assert torch.isnan(pack(y, mask)[:, 1]).all()
    assert model.num_batches_tracked == 0
    assert torch.isfinite(model.running_mean).all()


def test_an_empty_batch_counts_and_an_empty_mask_at_inference_gives_zeros():
    model = MaskedBatchNorm1d(3)
    nothing = torch.zeros(0, 4, dtype=torch.bool)
    assert model(torch.zeros(0, 3, 4), mask=nothing).shape == (0, 3, 4)
    assert model.num_batches_tracked == 1
    y = model.eval()(torch.ones(2, 3, 4), mask=torch.zeros(2, 4, dtype=torch.bool))
    assert torch.equal(y, torch.zeros(2, 3, 4))


def test_errors_name_the_argument_and_change_nothing():
    model, x = MaskedBatchNorm1d(3), torch.randn(6, 3, 4)
    mask = torch.ones(6, 4, dtype=torch.bool)
    state = copy.deepcopy(model.state_dict())
    for wrong, came in ((mask.int(), "torch.int32"), (mask.float(), "torch.float32")):
        with pytest.raises(TypeError, match=f"mask: expected torch.bool, got {came}"):
            model(x, mask=wrong)
    with pytest.raises(TypeError, match="mask: expected a tensor, got list"):
        model(x, mask=[True])
    for shape in ((6,), (4, 6), (6, 5), (6, 3), (0, 4), (6, 3, 4), (6, 4, 1), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match=r"mask: expected shape \(6, 4\), \(N, \*spatial\)"):
            model(x, mask=torch.ones(shape, dtype=torch.bool))
    for valid in (0, 1):
        sparse = torch.zeros(6, 4, dtype=torch.bool)
        sparse.view(-1)[:valid] = True
        with pytest.raises(
            ValueError,
            match=f"mask: expected at least 2 valid positions when training, got {valid}",
        ):
            model(x, mask=sparse)
    with pytest.raises(ValueError, match=r"mask: expected a tensor on cpu, got meta"):
        model(x, mask=torch.ones(6, 4, dtype=torch.bool, device="meta"))
    with pytest.raises(RuntimeError, match="input: expected 3 channels"):
        model(torch.randn(6, 2, 4), mask=mask)
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
