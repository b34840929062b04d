import copy
import pickle

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import companion
from companion.variants import GhostBatchNorm1d, GhostBatchNorm2d, GhostBatchNorm3d

SHAPES = [(5,), (5, 4), (5, 2, 3), (5, 2, 3, 2)]


def pair(shape, ghost_size, dtype=torch.float64, **options):
    """A ghost layer and a plain one with the same random parameters and statistics."""
    ghost_class, plain_class = {
        1: (GhostBatchNorm1d, companion.BatchNorm1d),
        2: (GhostBatchNorm1d, companion.BatchNorm1d),
        3: (GhostBatchNorm2d, companion.BatchNorm2d),
        4: (GhostBatchNorm3d, companion.BatchNorm3d),
    }[len(shape)]
    plain = plain_class(shape[0], dtype=dtype, **options)
    torch.manual_seed(0)
    for tensor in (*plain.parameters(), plain.running_mean, plain.running_var):
        if tensor is not None:
            tensor.data.copy_(torch.rand(shape[0]) + 0.5)
    ghost = ghost_class(shape[0], dtype=dtype, ghost_size=ghost_size, **options)
    ghost.load_state_dict(plain.state_dict())
    return ghost, plain


def batch(size, shape, dtype=torch.float64):
    torch.manual_seed(1)
    return torch.randn(size, *shape, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "parts"), [(12, [4, 4, 4]), (14, [4, 4, 6]), (9, [4, 5])])
def test_each_ghost_batch_is_normalized_on_its_own(shape, size, parts):
    ghost, plain = pair(shape, 4)
    x = batch(size, shape)
    y = ghost(x)
    expected = torch.cat([copy.deepcopy(plain)(part) for part in x.split(parts)])
    assert torch.allclose(y, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(y)
    got = torch.autograd.grad((y * weight).sum(), [x, ghost.weight, ghost.bias])
    again = [copy.deepcopy(plain) for _ in parts]
    for layer in again:
        layer.weight, layer.bias = plain.weight, plain.bias
    y = torch.cat([layer(part) for layer, part in zip(again, x.split(parts), strict=True)])
    want = torch.autograd.grad((y * weight).sum(), [x, plain.weight, plain.bias])
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize(("size", "parts"), [(12, [4, 4, 4]), (14, [4, 4, 6])])
def test_running_statistics_move_once_by_the_average_ghost(momentum, size, parts):
    ghost, plain = pair((5, 2, 3), 4, momentum=momentum)
    x = batch(size, (5, 2, 3)).detach()
    mean, var = plain.running_mean.clone(), plain.running_var.clone()
    for step in (1, 2):
        factor = 1 / step if momentum is None else momentum
        ghost(x * step)
        ghosts = (x * step).split(parts)
        average = torch.stack([part.mean(dim=(0, 2, 3)) for part in ghosts]).mean(dim=0)
        spread = torch.stack([part.var(dim=(0, 2, 3)) for part in ghosts]).mean(dim=0)
        mean = (1 - factor) * mean + factor * average
        var = (1 - factor) * var + factor * spread
        assert ghost.num_batches_tracked == step
        assert torch.allclose(ghost.running_mean, mean, rtol=0, atol=1e-13)
        assert torch.allclose(ghost.running_var, var, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ghost_size", [7, 12, 100])
def test_fewer_than_two_ghosts_are_plain_batch_normalization_exactly(shape, ghost_size):
    ghost, plain = pair(shape, ghost_size)
    x = batch(12, shape)
    assert torch.equal(ghost(x), plain(x))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, ghost.state_dict()[name])


@pytest.mark.parametrize("shape", SHAPES)
def test_inference_is_that_of_batch_normalization(shape):
    ghost, plain = pair(shape, 4)
    x = batch(12, shape)
    assert torch.equal(ghost.eval()(x), plain.eval()(x))


@pytest.mark.parametrize(
    "options", [{"affine": False}, {"bias": False}, {"track_running_stats": False}, {}]
)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_options_of_the_layer(options, momentum):
    ghost, plain = pair((5,), 4, momentum=momentum, **options)
    x = batch(10, (5,))
    expected = torch.cat([plain(x[:4]), plain(x[4:])])
    assert torch.allclose(ghost(x), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [12, 14])
@pytest.mark.parametrize("row", [0, 11])
def test_a_batch_that_is_not_finite_can_be_skipped(size, row):
    ghost, _ = pair((5,), 4, skip_nonfinite=True)
    before = copy.deepcopy(ghost.state_dict())
    x = batch(size, (5,)).detach()
    x[row, 2] = float("nan")
    y = ghost(x)
    assert y.isnan().any()
    assert not y.isnan().all()
    for name, value in before.items():
        assert torch.equal(value, ghost.state_dict()[name])


@pytest.mark.parametrize("size", [12, 14])
def test_a_checkpointed_batch_counts_once(size):
    ghost, _ = pair((5,), 4)
    alike = copy.deepcopy(ghost)
    x = batch(size, (5,))
    checkpoint(ghost, x, use_reentrant=False).square().sum().backward()
    alike(x)
    for name, value in alike.state_dict().items():
        assert torch.equal(value, ghost.state_dict()[name])


def test_half_precision_and_an_empty_batch():
    ghost, _ = pair((5, 2, 3), 4, dtype=torch.float32)
    x = batch(12, (5, 2, 3), torch.bfloat16)
    assert ghost(x).dtype == torch.bfloat16
    assert ghost.running_mean.dtype == torch.float32
    assert ghost(x[:0]).shape == (0, 5, 2, 3)


def test_the_layer_survives_a_pickle():
    ghost, _ = pair((5,), 4)
    assert str(ghost).endswith("track_running_stats=True, ghost_size=4)")
    restored = pickle.loads(pickle.dumps(ghost))
    x = batch(12, (5,))
    assert restored.ghost_size == 4
    assert torch.equal(restored(x), ghost(x))


def test_errors_name_the_argument_and_change_nothing():
    with pytest.raises(ValueError, match="ghost_size: expected at least 1 example, got 0"):
        GhostBatchNorm1d(5, ghost_size=0)
    for wrong in (2.0, True):
        with pytest.raises(TypeError, match="ghost_size: expected an integer, got"):
            GhostBatchNorm1d(5, ghost_size=wrong)
    ghost, _ = pair((5,), 1)
    before = copy.deepcopy(ghost.state_dict())
    with pytest.raises(ValueError, match="ghost_size: expected more than 1 value per channel"):
        ghost(batch(12, (5,)))
    with pytest.raises(RuntimeError, match="input: expected 5 channels"):
        ghost(batch(12, (4,)))
    with pytest.raises(ValueError, match="input: expected dimensions"):
        ghost(batch(12, (5, 2, 2)))
    with pytest.raises(TypeError, match="input: expected a tensor"):
        ghost([1.0])
    for name, value in before.items():
        assert torch.equal(value, ghost.state_dict()[name])


def test_ghosts_of_one_image_have_the_statistics_of_its_positions():
    ghost, _ = pair((5, 4, 4), 1)
    y = ghost(batch(3, (5, 4, 4)))
    centred = (y - ghost.bias.view(-1, 1, 1)).mean(dim=(2, 3))
    assert centred.abs().max() < 1e-12
