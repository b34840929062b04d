"""Folding one normalization into one layer, against the float64 oracle."""

import copy

import numpy as np
import pytest
import torch
from _frozen import difference, line, oracle, settled, values
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

import companion
from companion.inference import FoldingError, fold_into_next, fold_into_previous
from companion.variants import BatchRenorm2d, FrozenBatchNorm2d, GhostBatchNorm2d
from companion.variants.noisy import NoisyBatchNorm2d

SIZES = {1: (9,), 2: (7, 6), 3: (5, 5, 6)}
NORMS = {0: "BatchNorm1d", 1: "BatchNorm1d", 2: "BatchNorm2d", 3: "BatchNorm3d"}
CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SETTINGS = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2, "bias": False},
    {"groups": 2, "padding": 1},
    {"groups": 4, "stride": 3},
    {"padding": 1, "padding_mode": "circular", "groups": 2},
]
TRANSPOSED_SETTINGS = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"groups": 2, "stride": 2, "bias": False},
    {"groups": 4, "dilation": 3, "output_padding": 2, "stride": 3},
]


def norm(spatial, channels, library=companion, **options):
    cls = getattr(library, NORMS[spatial])
    return settled(cls(channels, dtype=torch.float64, **options))


def example(channels, spatial):
    torch.manual_seed(2)
    return torch.randn(5, channels, *SIZES.get(spatial, ()), dtype=torch.float64)


def check_previous(layer, bn, x):
    folded = fold_into_previous(layer, bn)
    assert type(folded) is type(layer)
    assert difference(folded(x), oracle(bn, layer(x))) < 1e-14
    return folded


def check_next(bn, layer, x):
    folded = fold_into_next(bn, layer)
    assert type(folded) is type(layer)
    assert difference(folded(x), values(layer(torch.from_numpy(oracle(bn, x))))) < 1e-14
    return folded


@pytest.mark.parametrize("library", [nn, companion])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"eps": 0.1}])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(library, options, bias):
    x = example(6, 0)
    layer = nn.Linear(6, 4, bias=bias, dtype=torch.float64)
    check_previous(layer, norm(0, 4, library, **options), x)
    check_next(norm(0, 6, library, **options), layer, x)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_convolution_before(spatial, settings):
    x = example(4, spatial)
    layer = CONVOLUTIONS[spatial](4, 8, 3, dtype=torch.float64, **settings)
    check_previous(layer, norm(spatial, 8), x)
    check_previous(layer, norm(spatial, 8, affine=False), x)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("settings", TRANSPOSED_SETTINGS)
def test_a_transposed_convolution_before(spatial, settings):
    x = example(4, spatial)
    layer = TRANSPOSED[spatial](4, 8, 3, dtype=torch.float64, **settings)
    check_previous(layer, norm(spatial, 8), x)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2, "bias": False},
        {"dilation": 2},
        {"groups": 2},
        {"groups": 4},
        {"padding": "valid"},
        {"padding": 1, "padding_mode": "circular", "groups": 2},
        {"padding": 1, "padding_mode": "replicate"},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": "same", "padding_mode": "circular"},
    ],
)
def test_a_convolution_after_that_pads_no_zeros(spatial, settings):
    x = example(4, spatial)
    layer = CONVOLUTIONS[spatial](4, 8, 3, dtype=torch.float64, **settings)
    check_next(norm(spatial, 4), layer, x)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("padding", [1, "same"])
def test_a_convolution_after_that_pads_zeros_is_exact_only_if_zero_stays(spatial, padding):
    x = example(4, spatial)
    layer = CONVOLUTIONS[spatial](4, 8, 3, padding=padding, groups=2, dtype=torch.float64)
    bn = norm(spatial, 4)
    with pytest.raises(FoldingError, match=r"layer: expected no zero padding.*padding="):
        fold_into_next(bn, layer)
    # Why: what would be folded is right inside and wrong at the border.
    unpadded = copy.deepcopy(layer)
    unpadded.padding = (0,) * spatial
    unpadded._reversed_padding_repeated_twice = [0] * (2 * spatial)
    folded = fold_into_next(bn, unpadded)
    folded.padding = (1,) * spatial
    wrong = (folded(x) - layer(bn(x))).abs()
    inside = (slice(None), slice(None), *[slice(1, -1)] * spatial)
    assert wrong[inside].max() < 1e-13
    assert wrong.max() > 0.1
    # bias = slope·mean: an input of 0 becomes 0.
    scale = values(bn.weight) / np.sqrt(values(bn.running_var) + bn.eps)
    bn.running_mean.zero_()
    bn.bias.data.zero_()
    assert (scale != 0).all()
    check_next(bn, layer, x)
    check_next(norm(spatial, 4), type(layer)(4, 8, 1, padding="same", dtype=torch.float64), x)


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize(
    "settings",
    [{"kernel_size": 2}, {"kernel_size": 1, "stride": 2}, {"kernel_size": 3, "padding": 1}],
)
def test_a_transposed_convolution_after(spatial, settings):
    x = example(4, spatial)
    layer = TRANSPOSED[spatial](4, 8, groups=2, dtype=torch.float64, **settings)
    bn = norm(spatial, 4)
    with pytest.raises(FoldingError, match=r"layer: expected kernel size and stride 1"):
        fold_into_next(bn, layer)
    bn.running_mean.zero_()
    bn.bias.data.zero_()
    check_next(bn, layer, x)
    single = TRANSPOSED[spatial](4, 8, 1, groups=2, dtype=torch.float64)
    check_next(norm(spatial, 4), single, x)
    hole = TRANSPOSED[spatial](4, 8, 1, dilation=2, output_padding=1, dtype=torch.float64)
    with pytest.raises(FoldingError, match=r"output_padding=\(1,"):
        fold_into_next(norm(spatial, 4), hole)


def test_known_subclasses_and_synchronized_layers():
    x = example(4, 2)
    layer = nn.Conv2d(4, 6, 3, dtype=torch.float64)
    for bn in (
        nn.SyncBatchNorm(6, dtype=torch.float64),
        GhostBatchNorm2d(6, ghost_size=2, dtype=torch.float64),
        NoisyBatchNorm2d(6, dtype=torch.float64),
        BatchRenorm2d(6, dtype=torch.float64),
        FrozenBatchNorm2d(6, dtype=torch.float64),
        companion.BatchNormAct2d(6, relu=False, dtype=torch.float64),
        companion.BatchNorm2d(6, bias=False, dtype=torch.float64),
    ):
        check_previous(layer, settled(bn), x)
    check_previous(layer, settled(FrozenBatchNorm2d(6, dtype=torch.float64)).train(), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", ["previous", "next"])
def test_the_result_is_rounded_once(dtype, place):
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).to(dtype)
    bn = settled(companion.BatchNorm1d(64).to(dtype))
    slope, shift = line(bn)
    weight, bias = values(layer.weight), values(layer.bias)
    if place == "previous":
        folded = fold_into_previous(layer, bn)
        weight, bias = slope[:, None] * weight, slope * bias + shift
    else:
        folded = fold_into_next(bn, layer)
        weight, bias = weight * slope, weight @ shift + bias
    assert folded.weight.dtype == folded.bias.dtype == dtype
    assert torch.equal(folded.weight, torch.from_numpy(weight).to(dtype))
    # The bias is a sum, whose order may turn a tie.
    spacing = torch.finfo(dtype).eps * np.abs(bias)
    assert (np.abs(values(folded.bias) - bias) <= 0.51 * spacing + 1e-15).all()


def test_pytorch_rounds_more_than_once():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64).to(torch.bfloat16).eval()  # drawn in bfloat16 a weight may be 0
    bn = settled(nn.BatchNorm1d(64))
    slope, _ = line(bn)
    exact = slope[:, None] * values(layer.weight)

    def worst(folded):
        return (np.abs(values(folded.weight) - exact) / np.abs(exact)).max()

    # The scale is rounded to bfloat16 before it is multiplied.
    assert worst(fuse_linear_bn_eval(layer, bn)) > 1.5 * 2**-9 * 2
    assert worst(fold_into_previous(layer, bn)) <= 2**-9 * 2


def test_pytorch_refuses_a_layer_without_affine_parameters_after_linear():
    layer = nn.Linear(6, 4, dtype=torch.float64).eval()
    bn = norm(0, 4, nn, affine=False)
    with pytest.raises(TypeError):
        fuse_linear_bn_eval(layer, bn)
    check_previous(layer, bn, example(6, 0))


def test_pytorch_folds_groups_of_a_transposed_convolution_wrongly():
    x = example(4, 2)
    layer = nn.ConvTranspose2d(4, 4, 3, groups=2, dtype=torch.float64).eval()
    bn = norm(2, 4, nn)
    with pytest.raises(RuntimeError):
        fuse_conv_bn_eval(layer, bn, transpose=True)
    # Without saying so it scales the inputs in place of the outputs, and says nothing.
    wrong = fuse_conv_bn_eval(layer, bn)
    assert difference(wrong(x), oracle(bn, layer(x))) > 0.1
    check_previous(layer, bn, x)


def test_pytorch_refuses_a_convolution_that_is_in_training_mode():
    x = example(4, 2)
    layer, bn = nn.Conv2d(4, 6, 3, dtype=torch.float64), norm(2, 6, nn)
    with pytest.raises(AssertionError, match="eval"):
        fuse_conv_bn_eval(layer, bn)
    assert check_previous(layer, bn, x).training


def test_pytorch_says_nothing_when_channels_broadcast():
    layer = nn.Linear(6, 4, dtype=torch.float64).eval()
    fuse_linear_bn_eval(layer, norm(0, 1, nn))
    with pytest.raises(FoldingError, match="bn: expected 4 channels, as the layer's output, got 1"):
        fold_into_previous(layer, norm(0, 1, nn))


def test_parameters_shared_with_another_layer_stay_theirs():
    layer, other = nn.Linear(4, 4, dtype=torch.float64), nn.Linear(4, 4, dtype=torch.float64)
    other.weight = layer.weight
    bn, x = norm(0, 4), example(4, 0)
    before = copy.deepcopy((layer.state_dict(), other.state_dict(), bn.state_dict()))
    folded = check_previous(layer, bn, x)
    check_next(bn, other, x)
    with torch.no_grad():
        folded.weight.fill_(3.0)
    assert other.weight is layer.weight
    for now, then in zip((layer, other, bn), before, strict=True):
        assert all(torch.equal(value, then[name]) for name, value in now.state_dict().items())


@pytest.mark.parametrize("kind", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrized_weights(kind):
    x = example(4, 2)
    layer = kind(nn.Conv2d(4, 6, 3, groups=2, dtype=torch.float64))
    before = copy.deepcopy(layer.state_dict())
    folded = fold_into_previous(layer, norm(2, 6))
    # Reading a spectral norm's weight in training mode would move its buffers.
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert type(folded) is nn.Conv2d
    assert folded.training
    assert folded.weight.requires_grad
    assert difference(folded(x), oracle(norm(2, 6), layer.eval()(x))) < 1e-14
    assert nn.utils.parametrize.is_parametrized(layer)


def test_layout_gradients_and_settings_carry_over():
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dtype=torch.float64)
    layer = layer.to(memory_format=torch.channels_last)
    layer.weight.requires_grad_(False)
    folded = fold_into_previous(layer, norm(2, 6))
    assert folded.weight.is_contiguous(memory_format=torch.channels_last)
    assert (folded.weight.requires_grad, folded.bias.requires_grad) == (False, True)
    assert str(folded) == str(layer)
    bare = nn.Conv2d(4, 6, 3, bias=False, dtype=torch.float64).requires_grad_(False)
    assert not fold_into_previous(bare, norm(2, 6)).bias.requires_grad


def test_large_statistics_lose_nothing():
    """Mean and layer bias that nearly cancel: the difference is taken before the product."""
    layer = nn.Linear(3, 4, dtype=torch.float64)
    bn = norm(0, 4)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(1e9 + 1.0)
        bn.running_mean.fill_(1e9)
        bn.bias.zero_()
    slope, _ = line(bn)
    np.testing.assert_allclose(values(fold_into_previous(layer, bn).bias), slope, rtol=1e-15)


@pytest.mark.cuda
def test_layers_on_a_gpu():
    x = example(4, 2).cuda()
    layer, bn = nn.Conv2d(4, 6, 3, dtype=torch.float64).cuda(), norm(2, 6).cuda()
    folded = fold_into_previous(layer, bn)
    assert folded.weight.is_cuda
    assert difference(folded(x).cpu(), values(bn(layer(x)).cpu())) < 1e-12
    with pytest.raises(FoldingError, match=r"bn: expected the layer's device, cuda:0, got cpu"):
        fold_into_previous(layer, bn.cpu())
