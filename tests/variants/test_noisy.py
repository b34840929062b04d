import copy

import numpy as np
import pytest
import torch
from _family import SHAPES, batch, randomized
from torch.utils.checkpoint import checkpoint

import companion
from companion.variants import NoisyBatchNorm1d, NoisyBatchNorm2d, NoisyBatchNorm3d

CLASSES = {2: NoisyBatchNorm1d, 3: NoisyBatchNorm1d, 4: NoisyBatchNorm2d, 5: NoisyBatchNorm3d}
PLAIN = {2: companion.BatchNorm1d, 3: companion.BatchNorm1d, 4: companion.BatchNorm2d}
PLAIN[5] = companion.BatchNorm3d
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
QUIET = {"shift_limit": 0.0, "scale_limit": 1.0, "shift_spread": 0.0, "scale_spread": 0.0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pair(shape, dtype=torch.float64, **options):
    noisy = randomized(CLASSES[len(shape)](3, dtype=dtype, **options))
    plain = PLAIN[len(shape)](3, dtype=dtype)
    plain.load_state_dict(noisy.state_dict())
    return noisy, plain


def noise_of(generator, y, limits, spreads, dtype):
    """The draws of the paper's algorithm in order, and the noisy activations in float64."""
    draw = {"generator": generator, "dtype": dtype}
    channels = (3, *(1,) * (y.ndim - 2))
    u = [torch.rand(channels, **draw).double().numpy() for _ in range(2)]
    mu, sigma = limits[0] * (2 * u[0] - 1), 1 + (limits[1] - 1) * u[1]
    m = mu + spreads[0] * (2 * torch.rand(y.shape, **draw).double().numpy() - 1)
    s = sigma + spreads[1] * torch.randn(y.shape, **draw).double().numpy()
    return s * y.double().detach().numpy() + m


@SHAPE
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_papers_algorithm(shape, dtype):
    parameters = torch.float32 if dtype == torch.bfloat16 else dtype
    noisy, plain = pair(shape, parameters, generator=seeded())
    x = batch(shape, dtype)
    exact = noise_of(seeded(), plain(x), (0.5, 1.25), (0.1, 0.1), parameters)
    y = noisy(x).double().detach().numpy()
    rounding = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2**-8}[dtype]
    assert np.abs(y - exact).max() < rounding * np.abs(exact).max()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, noisy.state_dict()[name])


@SHAPE
def test_without_noise_it_is_batch_normalization(shape):
    noisy, plain = pair(shape, **QUIET)
    assert torch.equal(noisy(batch(shape)), plain(batch(shape)))


@SHAPE
def test_inference_has_no_noise(shape):
    noisy, plain = pair(shape, shift_limit=10.0)
    assert torch.equal(noisy.eval()(batch(shape)), plain.eval()(batch(shape)))


def test_the_same_seed_gives_the_same_noise_and_every_step_another():
    first, second = (pair((8, 3), generator=seeded(3))[0] for _ in range(2))
    steps = [first(batch((8, 3))) for _ in range(3)]
    assert torch.equal(torch.stack(steps), torch.stack([second(batch((8, 3))) for _ in range(3)]))
    assert not torch.equal(steps[0], steps[1])
    torch.manual_seed(7)
    default, _ = pair((8, 3))
    torch.manual_seed(7)
    expected = default(batch((8, 3)))
    torch.manual_seed(7)
    assert torch.equal(default(batch((8, 3))), expected)


def test_mean_and_variance_of_the_activations_jump_from_step_to_step():
    # The claim of the experiment: batch normalization holds both, the noise lets both go.
    noisy, plain = pair((4000, 3), generator=seeded())
    noisy.weight.data.fill_(1.0), noisy.bias.data.zero_()
    plain.load_state_dict(noisy.state_dict())
    x = batch((4000, 3))
    with torch.no_grad():
        moments = {
            name: torch.stack([torch.stack([y.mean(0), y.std(0)]) for y in ys])
            for name, ys in (
                ("noisy", [noisy(x) for _ in range(200)]),
                ("plain", [plain(x) for _ in range(3)]),
            )
        }
    assert moments["plain"].std(0).max() < 1e-12
    means, stds = moments["noisy"].unbind(1)
    # U(-½, ½) has standard deviation 1/√12; s·x̂ + m has variance σ² + 0.01 + 0.01/3.
    assert means.abs().max() < 0.5 + 0.05
    assert (means.std(0) - 12**-0.5).abs().max() < 0.05
    assert stds.min() > 1.0 - 0.03
    assert stds.max() < (1.25**2 + 0.01 + 0.01 / 3) ** 0.5 + 0.03
    assert (stds.mean(0) - 1.13).abs().max() < 0.03


def test_activation_checkpointing_with_a_generator_is_refused_without_it_right():
    x = batch((8, 3)).requires_grad_()
    noisy, _ = pair((8, 3), generator=seeded())
    y = checkpoint(noisy, x, use_reentrant=False)
    with pytest.raises(RuntimeError, match="generator: expected None under activation checkpoint"):
        y.sum().backward()
    noisy, _ = pair((8, 3))
    alike = copy.deepcopy(noisy)
    grads = []
    for run in (lambda: checkpoint(noisy, x, use_reentrant=False), lambda: alike(x)):
        torch.manual_seed(0)
        grads.append(torch.autograd.grad(run().pow(3).sum(), x)[0])
    assert torch.allclose(*grads, rtol=0, atol=1e-12)
    assert noisy.num_batches_tracked == 1


@pytest.mark.parametrize(
    ("name", "value", "least"),
    [
        ("shift_limit", -0.1, 0.0),
        ("scale_limit", 0.9, 1.0),
        ("shift_spread", -1.0, 0.0),
        ("scale_spread", float("nan"), 0.0),
    ],
)
def test_errors_name_the_argument(name, value, least):
    with pytest.raises(ValueError, match=f"{name}: expected a number not below {least}, got"):
        NoisyBatchNorm1d(3, **{name: value})


def test_the_text_of_the_layer_has_the_noise():
    text = str(NoisyBatchNorm1d(3))
    assert text.endswith("shift_limit=0.5, scale_limit=1.25, shift_spread=0.1, scale_spread=0.1)")
