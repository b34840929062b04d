"""The layers: PyTorch's state and interface, swapped in both directions."""

import copy
import inspect
import io
import pickle

import pytest
import torch
from _layer import DEVICES, HALVES, PROPERTY, batches, max_difference
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import companion
from companion import convert

PAIRS = [
    (companion.BatchNorm1d, nn.BatchNorm1d, (6, 3)),
    (companion.BatchNorm1d, nn.BatchNorm1d, (4, 3, 5)),
    (companion.BatchNorm2d, nn.BatchNorm2d, (4, 3, 5, 2)),
    (companion.BatchNorm3d, nn.BatchNorm3d, (2, 3, 4, 5, 2)),
]
OPTIONS = [
    {},
    {"eps": 1e-3, "momentum": 0.3},
    {"momentum": None},
    {"affine": False},
    {"track_running_stats": False},
    {"track_running_stats": False, "momentum": None},
    {"affine": False, "track_running_stats": False},
    {"bias": False},
]
KNOWS_BIAS = "bias" in inspect.signature(nn.BatchNorm1d).parameters


def theirs_with(theirs, options):
    options = dict(options)
    bias = options.pop("bias", True)
    layer = theirs(3, **options)
    if not bias:
        layer.register_parameter("bias", None)
    return layer


def train(layer, shape, steps=8, seed=0):
    """Outputs and gradients of some training steps, then an output in evaluation."""
    generator, seen = torch.Generator().manual_seed(seed), []
    optimizer = torch.optim.SGD([*layer.parameters(), torch.zeros(1, requires_grad=True)], 0.1)
    for _ in range(steps):
        x = (torch.randn(shape, generator=generator) * 2 + 1).requires_grad_()
        y = layer(x)
        optimizer.zero_grad()
        (y.sin() * y).mean().backward()
        optimizer.step()
        seen += [y, x.grad]
    layer.eval()
    return [*seen, layer(torch.randn(shape, generator=generator))]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS)
def test_training_and_evaluation_agree_with_pytorch(ours, theirs, shape, options):
    pair = ours(3, **options), theirs_with(theirs, options)
    assert list(pair[0].state_dict()) == list(pair[1].state_dict())
    for a, b in zip(*(train(layer, shape) for layer in pair), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    for name, value in pair[1].state_dict().items():
        kept = pair[0].state_dict()[name]
        assert kept.dtype == value.dtype
        torch.testing.assert_close(kept, value, rtol=1e-4, atol=1e-6)


@given(batches(), st.sampled_from(OPTIONS), st.booleans())
@PROPERTY
def test_any_batch_agrees_with_pytorch(x, options, training):
    ours, theirs, _ = PAIRS[max(0, x.ndim - 2)]
    # float64, where PyTorch is accurate too
    x, channels = x.double(), x.shape[1]
    options = {key: value for key, value in options.items() if key != "bias"}
    pair = [cls(channels, dtype=torch.float64, **options).train(training) for cls in (ours, theirs)]
    torch.testing.assert_close(pair[0](x), pair[1](x), rtol=1e-7, atol=1e-7)
    for name, value in pair[1].state_dict().items():
        torch.testing.assert_close(pair[0].state_dict()[name], value)


@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS)
def test_signature_and_attributes(ours, theirs, shape):
    mine, other = (dict(inspect.signature(cls).parameters) for cls in (ours, theirs))
    assert mine.pop("skip_nonfinite").default is False
    assert mine.pop("backend").default == "auto"
    mine.pop("bias")
    other.pop("bias", None)
    assert [(name, p.default) for name, p in mine.items()] == [
        (name, p.default) for name, p in other.items()
    ]
    assert issubclass(ours, theirs)
    missing = set(vars(theirs(3))) - set(vars(ours(3)))
    assert not missing
    assert ours(3)(torch.randn(shape)).shape == shape
    assert "Parameters" in ours.__doc__


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS)
@pytest.mark.parametrize("direction", ["to ours", "to theirs"])
def test_state_dictionaries_are_interchangeable(ours, theirs, shape, options, direction):
    pair = [ours(3, **options), theirs_with(theirs, options)]
    source, target = pair[::-1] if direction == "to ours" else pair
    train(source, shape)
    assert target.load_state_dict(source.state_dict(), strict=True) == ([], [])
    assert source.state_dict()._metadata == target.state_dict()._metadata
    x = torch.randn(shape)
    torch.testing.assert_close(target.eval()(x), source(x), rtol=1e-5, atol=1e-6)


def test_state_dictionaries_of_version_1():
    old = nn.BatchNorm2d(3).state_dict()
    del old["num_batches_tracked"]
    old._metadata[""]["version"] = 1
    old["running_mean"] += 2
    layer = companion.BatchNorm2d(3)
    layer.load_state_dict(old, strict=True)
    assert layer.running_mean.tolist() == [2.0] * 3
    assert layer.num_batches_tracked.item() == 0
    old._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        layer.load_state_dict(old, strict=True)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS)
def test_repr_is_pytorchs(ours, theirs, shape, options):
    assert repr(ours(3, **options)) == repr(theirs_with(theirs, options))
    text = repr(ours(3, skip_nonfinite=True, **options))
    assert text == repr(theirs_with(theirs, options))[:-1] + ", skip_nonfinite=True)"
    assert len(shape) >= 2


@pytest.mark.skipif(not KNOWS_BIAS, reason="this PyTorch has no bias= argument")
def test_layer_without_bias_is_pytorchs():
    layer, other = companion.BatchNorm1d(3, bias=False), nn.BatchNorm1d(3, bias=False)
    assert list(layer._parameters) == list(other._parameters)
    assert layer.bias is other.bias is None
    layer.reset_parameters()


@pytest.mark.parametrize(("ours", "theirs", "shape"), PAIRS)
def test_wrong_rank(ours, theirs, shape):
    for bad in ((3,), (2, 3), (2, 3, 2), (2, 3, 2, 2), (2, 3, 2, 2, 2), (2, 3, 2, 2, 2, 2)):
        if len(bad) == len(shape) or (ours is companion.BatchNorm1d and len(bad) in (2, 3)):
            continue
        layer = ours(3)
        with pytest.raises(ValueError, match=r"^input: expected dimensions .*\(N, C") as caught:
            layer(torch.randn(bad))
        assert str(caught.value).endswith(f"got {len(bad)}: {bad}")
        with pytest.raises(ValueError, match="expected"):
            theirs(3)(torch.randn(bad))
        assert layer.num_batches_tracked.item() == 0


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
def test_wrong_channel_count(options, training):
    """Also where neither parameters nor statistics exist, which PyTorch does not notice."""
    layer = companion.BatchNorm2d(3, **options).train(training)
    message = r"^input: expected 3 channels in dimension 1, got 4: \(2, 4, 5, 5\)$"
    with pytest.raises(RuntimeError, match=message):
        layer(torch.randn(2, 4, 5, 5))
    assert layer.num_batches_tracked is None or layer.num_batches_tracked.item() == 0


def test_one_value_per_channel_changes_nothing():
    layer = companion.BatchNorm1d(3)
    with pytest.raises(ValueError, match=r"more than 1 value per channel .* shape \(1, 3\)"):
        layer(torch.randn(1, 3))
    assert layer.num_batches_tracked.item() == 0
    with pytest.raises(ValueError, match="more than 1 value"):
        companion.BatchNorm1d(3, track_running_stats=False).eval()(torch.randn(1, 3))
    layer.eval()(torch.randn(1, 3))


def test_input_of_another_kind():
    with pytest.raises(TypeError, match=r"^input: expected a tensor, got list"):
        companion.BatchNorm1d(3)([1.0, 2.0])
    with pytest.raises(NotImplementedError, match="int64"):
        companion.BatchNorm1d(3)(torch.ones(4, 3).long())


def test_statistics_removed_by_hand():
    """As test-time adaptation does it: the statistics of the batch are used in evaluation."""
    x, results = torch.randn(5, 3), []
    for cls in (companion.BatchNorm1d, nn.BatchNorm1d):
        layer = cls(3).eval()
        layer.running_mean = layer.running_var = None
        results.append(layer(x))
        layer.train()(x)
        assert layer.num_batches_tracked.item() == 1
    torch.testing.assert_close(*results)


def test_tracking_switched_off_by_hand():
    for momentum in (0.1, None):
        layer = companion.BatchNorm1d(3, momentum=momentum)
        layer.track_running_stats = False
        x = torch.randn(5, 3) + 4
        assert layer(x).mean().abs() < 1e-5
        assert layer.running_mean.tolist() == [0.0] * 3
        assert layer.num_batches_tracked.item() == 0
        assert max_difference(layer.eval()(x), x) < 1e-3


def test_count_removed_by_hand():
    layer = companion.BatchNorm1d(3, momentum=None)
    layer.num_batches_tracked = None
    layer(torch.randn(5, 3))
    assert layer.running_mean.tolist() == [0.0] * 3


def test_skip_nonfinite():
    layer, bad = companion.BatchNorm1d(3, skip_nonfinite=True), torch.randn(5, 3)
    bad[0, 0] = float("nan")
    layer(bad)
    assert layer.num_batches_tracked.item() == 0
    assert layer.running_mean.isfinite().all()
    layer.skip_nonfinite = False
    layer(bad)
    assert layer.num_batches_tracked.item() == 1
    assert layer.running_mean.isnan().tolist() == [True, False, False]


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
}


@pytest.mark.parametrize("how", COPIES)
def test_copies(how):
    layer = companion.BatchNorm2d(3, momentum=None, skip_nonfinite=True)
    train(layer, (4, 3, 2, 2))
    twin = COPIES[how](layer)
    assert type(twin) is companion.BatchNorm2d
    assert repr(twin) == repr(layer)
    x = torch.randn(4, 3, 2, 2)
    assert torch.equal(twin(x), layer(x))
    twin.train()(x)
    assert layer.num_batches_tracked.item() == 8
    assert twin.num_batches_tracked.item() == 9


def test_saving_and_loading_the_state():
    layer, file = companion.BatchNorm1d(3), io.BytesIO()
    train(layer, (4, 3))
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = nn.BatchNorm1d(3)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.running_var, layer.running_var)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("how", ["method", "to", "constructor"])
def test_statistics_stay_float32_in_half_precision(dtype, how, device):
    if how == "constructor":
        layer = companion.BatchNorm1d(3, dtype=dtype, device=device)
    else:
        layer = companion.BatchNorm1d(3)
        layer.running_mean.fill_(1.0 + 2.0**-20)
        model = nn.Sequential(layer).to(device)
        if how == "to":
            model.to(dtype)
        else:
            model.half() if dtype is torch.float16 else model.bfloat16()
        assert layer.running_mean.tolist() == [1.0 + 2.0**-20] * 3
    assert layer.weight.dtype == layer.bias.dtype == dtype
    assert layer.running_mean.dtype == layer.running_var.dtype == torch.float32
    assert layer.running_mean.device.type == layer.weight.device.type == device
    assert "running_mean" in dict(layer.named_buffers())
    x = torch.randn(5, 3, device=device).to(dtype)
    assert layer(x).dtype == layer.eval()(x).dtype == dtype
    assert layer.num_batches_tracked.item() == 1


def test_other_conversions_are_pytorchs():
    layer = companion.BatchNorm1d(3)
    assert layer.double().running_mean.dtype == torch.float64
    assert layer.half().running_mean.dtype == torch.float64
    assert layer.float().running_mean.dtype == torch.float32
    without = companion.BatchNorm1d(3, track_running_stats=False).half()
    assert without.running_mean is None
    assert without.weight.dtype == torch.float16


def test_half_precision_statistics_from_elsewhere_are_left_alone():
    """A converted half-precision layer of PyTorch's has them; they go where float() sends them."""
    layer = convert(nn.BatchNorm1d(3).half())
    assert layer.bfloat16().running_mean.dtype == torch.bfloat16
    assert layer.half().running_mean.dtype == torch.float16
    assert layer(torch.randn(5, 3).half()).dtype == torch.float16
    assert layer.float().running_mean.dtype == torch.float32


def test_meta_device():
    layer = companion.BatchNorm2d(3, device="meta")
    assert layer(torch.randn(2, 3, 4, 4, device="meta")).device.type == "meta"
    real = layer.to_empty(device="cpu")
    real.reset_parameters()
    assert real.running_var.tolist() == real.weight.tolist() == [1.0] * 3
    assert max_difference(real(torch.randn(9, 3, 4, 4)).mean((0, 2, 3)), torch.zeros(3)) < 1e-5


def test_tools_that_look_for_pytorchs_layers():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), companion.BatchNorm2d(4))
    x = torch.randn(8, 3, 6, 6)
    torch.optim.swa_utils.update_bn([x], model)
    assert model[1].num_batches_tracked.item() == 1
    torch.testing.assert_close(model[1].running_mean, model[0](x).mean((0, 2, 3)))
    model.eval()
    fused = nn.utils.fusion.fuse_conv_bn_eval(model[0], model[1])
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)
    synchronized = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(synchronized[1]) is nn.SyncBatchNorm
