import copy
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

import companion
from companion import reference
from companion.variants.decorrelated import DecorrelatedBatchNorm1d, DecorrelatedBatchNorm2d
from companion.variants.iterative import IterNorm1d, IterNorm2d
from companion.whitening import covariance, whiten, whitening_matrix

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))
CLASSES = {2: (DecorrelatedBatchNorm1d, IterNorm1d), 3: (DecorrelatedBatchNorm1d, IterNorm1d)}
CLASSES[4] = (DecorrelatedBatchNorm2d, IterNorm2d)
SHAPES = [(40, 6), (9, 6, 5), (5, 6, 3, 4)]
CASES = [(shape, cls) for shape in SHAPES for cls in CLASSES[len(shape)]]
BOTH = pytest.mark.parametrize("cls", CLASSES[2])


def normal(*shape, seed=1, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def batch(shape, seed=1, dtype=torch.float64):
    """Correlated channels with means and scales of their own."""
    x = normal(*shape, seed=seed).movedim(1, -1) @ normal(shape[1], shape[1], seed=0)
    return (x + torch.arange(shape[1])).movedim(-1, 1).contiguous().to(dtype)


def layer_of(cls, channels=6, dtype=torch.float64, seed=3, **options):
    """A layer with a random weight and bias."""
    layer = cls(channels, dtype=dtype, **options)
    for parameter in layer.parameters():
        parameter.data.copy_(normal(channels, seed=seed) + 2)
        seed += 1
    return layer


def rows(x):
    """Every position of every example as a row: ``(m, C)``."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def exact_root(sigma, steps):
    """(Σ + εI)^(-1/2) in NumPy, or what `steps` steps of the scalar iteration make of it."""
    values, vectors = np.linalg.eigh(sigma)
    trace, root = values.sum(), 1 / np.sqrt(values)
    if steps is not None:
        q = np.sqrt(values / trace)
        for _ in range(steps):
            q = q * (3 - q * q) / 2
        root = q * root
    return vectors * root @ vectors.T


def whitened(x, layer, mean=None, sigmas=None):
    """What the layer should return, in NumPy; with the batch's statistics if none are given."""
    flat = rows(x).detach().double().cpu().numpy()
    flat = flat - (flat.mean(axis=0) if mean is None else mean)
    outputs = []
    for g, part in enumerate(np.split(flat, layer.groups, axis=1)):
        sigma = part.T @ part / len(part) if sigmas is None else sigmas[g]
        sigma = sigma + layer.eps * np.eye(len(sigma))
        outputs.append(part @ exact_root(sigma, getattr(layer, "steps", None)))
    y = np.concatenate(outputs, axis=1)
    if layer.affine:
        y = y * layer.weight.detach().cpu().numpy() + layer.bias.detach().cpu().numpy()
    shape = [x.shape[0], *x.shape[2:], x.shape[1]]
    return np.moveaxis(y.reshape(shape), -1, 1)


def assert_near(values, exact, within=1e-12):
    values = values.detach().double().cpu().numpy()
    assert np.abs(values - exact).max() <= within * max(1.0, np.abs(exact).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(("shape", "cls"), CASES)
def test_training_whitens_each_group_and_inference_uses_what_it_saw(shape, cls, groups, device):
    layer = layer_of(cls, groups=groups, momentum=0.3).to(device)
    mean, sigma = np.zeros(6), np.stack([np.eye(6 // groups)] * groups)
    m = math.prod(shape) // 6
    for seed in (1, 2, 3):
        x = batch(shape, seed)
        assert_near(layer(x.to(device)), whitened(x, layer), 1e-11)
        flat = rows(x).numpy()
        mean = 0.7 * mean + 0.3 * flat.mean(axis=0)
        for g, part in enumerate(np.split(flat, groups, axis=1)):
            sigma[g] = 0.7 * sigma[g] + 0.3 * np.cov(part.T, bias=True) * m / (m - 1)
        assert layer.num_batches_tracked == seed
        assert_near(layer.running_mean, mean)
        assert_near(layer.running_covariance, sigma)
    layer.eval()
    assert_near(layer(x.to(device)), whitened(x, layer, mean, sigma), 1e-11)
    assert layer.num_batches_tracked == 3


@pytest.mark.parametrize("shape", SHAPES)
def test_the_whitened_covariance_is_the_identity(shape):
    layer = CLASSES[len(shape)][0](6, affine=False, eps=1e-13)
    error = covariance(rows(layer(batch(shape)))) - torch.eye(6)
    assert error.abs().max() < 1e-10
    layer = CLASSES[len(shape)][1](6, affine=False, eps=1e-13, steps=40)
    error = covariance(rows(layer(batch(shape)))) - torch.eye(6)
    assert error.abs().max() < 1e-10


@BOTH
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_epsilon_shrinks_each_principal_variance(cls, eps):
    x = batch((4, 6))
    before = torch.linalg.eigvalsh(covariance(x)).clamp(min=0)
    options = {"steps": 60} if cls is IterNorm1d else {}
    y = cls(6, affine=False, eps=eps, **options)(x)
    after = torch.linalg.eigvalsh(covariance(y))
    assert torch.allclose(after, before / (before + eps), rtol=0, atol=1e-9)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(("shape", "cls"), CASES)
def test_groups_of_one_channel_are_batch_normalization(shape, cls, momentum):
    layer = layer_of(cls, groups=6, momentum=momentum)
    plain = {2: companion.BatchNorm1d, 3: companion.BatchNorm1d, 4: companion.BatchNorm2d}
    plain = plain[len(shape)](6, momentum=momentum, dtype=torch.float64)
    plain.load_state_dict(layer.state_dict(), strict=False)
    for seed in (1, 2):
        x = batch(shape, seed).requires_grad_()
        y, grad_y = layer(x), normal(*shape, seed=5)
        exact = reference.forward(
            x.detach().numpy(), layer.weight.detach().numpy(), layer.bias.detach().numpy()
        )
        assert_near(y, exact.y)
        grads = torch.autograd.grad(y, (x, layer.weight, layer.bias), grad_y)
        for grad, expected in zip(grads, reference.backward(grad_y.numpy(), exact), strict=True):
            assert_near(grad, expected)
        plain(x)
    assert_near(layer.running_mean, plain.running_mean.numpy())
    assert_near(layer.running_covariance.flatten(), plain.running_var.numpy())
    assert_near(layer.eval()(x), plain.eval()(x).detach().numpy())


@pytest.mark.parametrize(("shape", "cls"), CASES)
@pytest.mark.parametrize("groups", [1, 3])
def test_inference_is_training_where_the_running_statistics_are_those_of_the_batch(
    shape, cls, groups
):
    layer = layer_of(cls, groups=groups, momentum=1.0)
    x = batch(shape)
    trained = layer(x)
    m = x.numel() // 6
    # The running covariance is the unbiased one of a sample; of a population it is the biased one.
    layer.running_covariance.mul_((m - 1) / m)
    assert_near(layer.eval()(x), trained.detach().numpy())


@BOTH
def test_many_batches_give_the_statistics_of_the_population(cls):
    options = {"steps": 30} if cls is IterNorm1d else {}
    layer = cls(4, momentum=None, affine=False, eps=1e-12, **options)
    mixing = normal(4, 4, seed=0)
    for part in (normal(8 * 600, 4) @ mixing.T).split(8):
        layer(part)
    w = whitening_matrix(layer.eval().running_covariance[0])
    assert (w @ mixing @ mixing.T @ w.T - torch.eye(4)).abs().max() < 0.1
    y = layer(normal(20000, 4, seed=9999) @ mixing.T)
    assert (covariance(y) - torch.eye(4)).abs().max() < 0.1


@pytest.mark.parametrize(("d", "m"), [(1, 4), (1, 8), (1, 32), (4, 8)])
def test_an_average_of_whitening_matrices_is_too_large_and_one_of_covariances_is_not(d, m):
    # Gaussian values of covariance I, for which a whitening matrix should be I.
    batches = normal(20000, m, d)
    averaged = whitening_matrix(torch.stack([covariance(x) for x in batches])).mean(dim=0)
    layer = DecorrelatedBatchNorm1d(d, momentum=None, affine=False, eps=1e-12)
    for x in batches[:1000]:
        layer(x)
    ours = whitening_matrix(layer.running_covariance[0])
    assert (ours - torch.eye(d)).abs().max() < 0.06
    if d == 1:
        # E[σ/σ_B] for Gaussian values.
        factor = math.sqrt(m / 2) * math.gamma((m - 2) / 2) / math.gamma((m - 1) / 2)
        assert averaged.item() == pytest.approx(factor, rel=0.05 if m == 4 else 0.01)
        assert m != 8 or factor == pytest.approx(1.20, abs=0.005)
    else:
        assert averaged.diagonal().min() > 1.4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
@BOTH
def test_first_and_second_derivatives(cls, groups, training):
    layer = layer_of(cls, 4, groups=groups, eps=0.1, momentum=0.0)
    layer.train(training)
    layer.running_covariance.copy_(layer.running_covariance * 2 + 0.5)
    x = batch((6, 4)).requires_grad_()

    def run(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = (x, layer.weight, layer.bias)
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_are_those_of_whitening(groups):
    x = batch((5, 6, 3, 4)).requires_grad_()
    grad_y = normal(5, 6, 3, 4, seed=5)
    layer = layer_of(DecorrelatedBatchNorm2d, groups=groups)
    grad_x = torch.autograd.grad(layer(x), x, grad_y)[0]
    flat = rows(x).detach().requires_grad_()
    y = whiten(flat, "zca", layer.eps, groups=groups) * layer.weight + layer.bias
    expected = torch.autograd.grad(y, flat, rows(grad_y))[0]
    assert_near(rows(grad_x), expected.numpy())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "cls"), CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_are_computed_in_float64(shape, cls, dtype, device):
    layer = layer_of(cls, dtype=torch.float32).to(device)
    x = batch(shape, dtype=dtype).to(device)
    y = layer(x)
    assert y.dtype == dtype
    wide = copy.deepcopy(layer).double()
    assert torch.equal(y, wide(x.double()).to(dtype))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_statistics_stay_float64_whatever_the_model_becomes(cls, dtype):
    layer = layer_of(cls)
    layer(batch((40, 6)))
    before = copy.deepcopy(layer.state_dict())
    layer.to(dtype)
    assert layer.weight.dtype == dtype
    for name in ("running_mean", "running_covariance"):
        assert layer.state_dict()[name].dtype == torch.float64
        assert torch.equal(layer.state_dict()[name], before[name])


def test_a_covariance_kept_in_float32_goes_wrong_where_channels_repeat_each_other():
    # Two channels that differ by 1e-4 of their size: variance 2e-8 of the difference.
    common = normal(4000, 1)
    x = torch.cat([common, common + 1e-4 * normal(4000, 1, seed=2)], dim=1) * 30
    layer = DecorrelatedBatchNorm1d(2, momentum=1.0, eps=1e-7, affine=False, dtype=torch.float32)
    layer(x)
    layer.float().eval()
    exact = covariance(layer(x)).diagonal()
    assert exact.sub(1).abs().max() < 0.05
    layer.running_covariance = layer.running_covariance.float().double()
    rounded = covariance(layer(x)).diagonal()
    assert not rounded.sub(1).abs().max() < 0.05


@pytest.mark.parametrize("cls", CLASSES[4])
def test_channels_last_stays_channels_last(cls):
    layer = layer_of(cls, groups=2)
    x = batch((5, 6, 3, 4))
    plain, last = copy.deepcopy(layer)(x), layer(x.to(memory_format=torch.channels_last))
    assert plain.is_contiguous()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert_near(last, plain.detach().numpy())


@BOTH
def test_state_round_trips_and_resets(cls):
    layer, other = layer_of(cls, groups=2), cls(6, groups=2, dtype=torch.float64)
    fresh = copy.deepcopy(other.state_dict())
    layer(batch((40, 6)))
    names = ["weight", "bias", "running_mean", "running_covariance", "num_batches_tracked"]
    assert list(layer.state_dict()) == names
    other.load_state_dict(layer.state_dict())
    restored = pickle.loads(pickle.dumps(layer))
    x = batch((7, 6), seed=2)
    expected = layer.eval()(x)
    assert torch.equal(other.eval()(x), expected)
    assert torch.equal(restored.eval()(x), expected)
    layer.reset_parameters()
    for name, value in layer.state_dict().items():
        assert torch.equal(value, fresh[name])


@BOTH
def test_without_running_statistics_the_batch_is_used_in_evaluation_too(cls):
    layer = cls(6, track_running_stats=False, affine=False)
    x = batch((40, 6))
    assert not layer.state_dict()
    assert_near(layer.eval()(x), whitened(x, layer), 1e-11)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        layer(x[:1])


@BOTH
def test_inference_takes_one_example_at_a_time(cls):
    layer = layer_of(cls)
    x = batch((40, 6))
    layer(x)
    together = layer.eval()(x)
    alone = torch.cat([layer(row[None]) for row in x])
    assert_near(alone, together.detach().numpy())


@BOTH
@pytest.mark.parametrize("track", [True, False])
def test_an_empty_batch_counts_and_moves_nothing_else(cls, track):
    layer = cls(6, track_running_stats=track)
    for training in (True, False):
        assert layer.train(training)(torch.empty(0, 6)).shape == (0, 6)
    if track:
        assert layer.num_batches_tracked == 1
        assert layer.running_mean.abs().max() == 0
        assert torch.equal(layer.running_covariance[0], torch.eye(6, dtype=torch.float64))


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_in_its_group(cls, value):
    layer = layer_of(cls, groups=2)
    x = batch((40, 6)).requires_grad_()
    clean = copy.deepcopy(layer)(x)
    with torch.no_grad():
        dirty = x.clone()
        dirty[3, 1] = value
    dirty.requires_grad_()
    y = layer(dirty)
    assert y[:, :3].isnan().all()
    assert torch.equal(y[:, 3:], clean[:, 3:])
    (gradient,) = torch.autograd.grad(y[:, 3:].square().sum(), dirty)
    assert gradient[:, 3:].isfinite().all()
    assert layer.running_covariance[1].isfinite().all()
    assert not layer.running_covariance[0].isfinite().all()
    y = layer.eval()(batch((5, 6)))
    assert y[:, 3:].isfinite().all()
    assert y[:, 0].isnan().all()


@BOTH
def test_dead_channels_and_huge_ones_together(cls):
    # Rounding makes eigenvalues of Σ + εI negative here: 1e16 times float64's digits is over ε.
    x = normal(4, 6) * 1e8
    x[:, 2] = 0.0
    assert torch.linalg.eigvalsh(covariance(x))[0] + 1e-5 < 0
    layer = cls(6)
    y = layer(x.requires_grad_())
    assert y.isfinite().all()
    assert y.abs().max() < 10
    y.square().sum().backward()
    assert x.grad.isfinite().all()


@BOTH
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_batch_counts_once(cls, reentrant):
    layer = layer_of(cls)
    alike = copy.deepcopy(layer)
    x = batch((40, 6)).requires_grad_()
    # Left to itself, checkpointing may stop before it comes to the statistics.
    with set_checkpoint_early_stop(False):
        checkpoint(layer, x, use_reentrant=reentrant).square().sum().backward()
    alike(x)
    for name, value in alike.state_dict().items():
        assert torch.equal(value, layer.state_dict()[name])


def test_pca_swaps_axes_from_batch_to_batch_and_the_layers_do_not():
    # One example in 300 batches of 64 Gaussian values with variances 1.2 and 1.
    scale = torch.tensor([1.2, 1.0], dtype=torch.float64).sqrt()
    example = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    maps = {
        "pca": lambda x: whiten(x, "pca", 1e-5),
        "zca": DecorrelatedBatchNorm1d(2, affine=False),
        "iteration": IterNorm1d(2, affine=False),
    }
    images, swapped = {name: [] for name in maps}, dict.fromkeys(maps, 0)
    for seed in range(300):
        x = torch.cat([example, normal(63, 2, seed=seed) * scale])
        for name, function in maps.items():
            y = function(x)
            images[name].append(y[0])
            # Whether the first output follows the second input more than the first.
            along = (y[:, :1] * (x - x.mean(dim=0)) / scale).mean(dim=0).abs()
            swapped[name] += int(along[1] > along[0])
    spread = {name: torch.stack(points).var(dim=0).sum() for name, points in images.items()}
    assert swapped["pca"] > 60
    assert swapped["zca"] == swapped["iteration"] == 0
    assert spread["pca"] > 5 * max(spread["zca"], spread["iteration"])


def test_weak_directions_stay_weak_with_few_steps():
    x = batch((200, 6))
    spread = [
        torch.linalg.eigvalsh(covariance(IterNorm1d(6, affine=False, steps=steps)(x)))[0].item()
        for steps in (1, 3, 5, 9)
    ]
    assert spread == sorted(spread)
    assert spread[0] < 0.05 * spread[-1]


def test_tools_do_not_take_the_layers_for_batch_normalization():
    model = nn.Sequential(DecorrelatedBatchNorm2d(4), IterNorm2d(4))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert [type(layer) for layer in converted] == [DecorrelatedBatchNorm2d, IterNorm2d]
    assert not isinstance(model[0], nn.modules.batchnorm._BatchNorm)


def test_the_layers_say_what_they_are():
    assert str(DecorrelatedBatchNorm1d(8, groups=2, momentum=None)) == (
        "DecorrelatedBatchNorm1d(8, groups=2, eps=1e-05, momentum=None, affine=True, "
        "track_running_stats=True)"
    )
    assert str(IterNorm2d(8, 1e-3, affine=False, steps=7)) == (
        "IterNorm2d(8, groups=1, eps=0.001, momentum=0.1, affine=False, "
        "track_running_stats=True, steps=7)"
    )


@BOTH
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0,), {}, ValueError, "num_features: expected at least 1, got 0"),
        ((2.0,), {}, TypeError, "num_features: expected an integer, got float"),
        ((6,), {"groups": 4}, ValueError, "groups: expected a divisor of 6 features, got 4"),
        ((6,), {"groups": True}, TypeError, "groups: expected an integer, got bool"),
        ((6, 0.0), {}, ValueError, "eps: expected a positive number, got 0.0"),
        ((6, math.nan), {}, ValueError, "eps: expected a positive number, got nan"),
        ((6, None), {}, TypeError, "eps: expected a number, got NoneType"),
        ((6, 1e-5, "all"), {}, TypeError, "momentum: expected a number, got str"),
    ],
)
def test_options_that_are_refused(cls, arguments, options, error, message):
    with pytest.raises(error, match=message):
        cls(*arguments, **options)


def test_steps_that_are_refused():
    with pytest.raises(ValueError, match="steps: expected at least 1, got 0"):
        IterNorm1d(6, steps=0)
    with pytest.raises(TypeError, match="steps: expected an integer, got float"):
        IterNorm2d(6, steps=5.0)


@pytest.mark.parametrize("training", [True, False])
@BOTH
def test_inputs_that_are_refused_change_nothing(cls, training):
    layer = layer_of(cls)
    layer(batch((40, 6)))
    before = copy.deepcopy(layer.state_dict())
    layer.train(training)
    with pytest.raises(TypeError, match="input: expected a tensor, got list"):
        layer([1.0])
    with pytest.raises(NotImplementedError, match=r"input: expected a floating.* torch\.int64"):
        layer(torch.ones(4, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"2 \(N, C\) or 3 \(N, C, L\), got 4: \(4, 6, 2, 2\)"):
        layer(torch.ones(4, 6, 2, 2))
    with pytest.raises(RuntimeError, match=r"input: expected 6 channels in dimension 1, got 5"):
        layer(torch.ones(4, 5))
    with pytest.raises(RuntimeError, match=r"expected a tensor on the layer's device, cpu, got me"):
        layer(torch.ones(4, 6, device="meta"))
    if training:
        with pytest.raises(ValueError, match="expected more than 1 value per channel"):
            layer(torch.ones(1, 6))
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("cls", CLASSES[4])
def test_a_network_trains_with_the_layer(cls):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3, bias=False), cls(8, groups=2), nn.ReLU())
    model = nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    x = normal(64, 2, 6, 6, dtype=torch.float32)
    target = (x[:, 0].var(dim=(1, 2)) > x[:, 1].var(dim=(1, 2))).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert nn.functional.cross_entropy(model.eval()(x), target) < 0.6 * losses[0]
