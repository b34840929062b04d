import math

import pytest
import torch

from companion import reference, whitening
from companion.exercises.properties import (
    CENTRED,
    PRINCIPAL_VARIANCES,
    TRIANGULAR,
    UNIT_VARIANCES,
    UNTURNED,
    WHITE,
)
from companion.whitening import covariance, gd_steps, whiten, whitening_matrix

METHODS = ("zca", "pca", "cholesky", "newton-schulz")
DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.cuda))


def sample(m, d, seed=0, device="cpu", dtype=torch.float64):
    """Correlated features with means and scales of their own."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    x = torch.randn(m, d, generator=generator, dtype=torch.float64) @ mixing + torch.arange(d)
    return x.to(device, dtype)


def rotation(d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0]


def test_covariance_is_the_biased_one():
    x = sample(20, 4)
    assert torch.allclose(covariance(x), torch.cov(x.T, correction=0), rtol=1e-13, atol=0)


def test_covariance_survives_a_large_mean():
    x = sample(50, 3)
    assert torch.allclose(covariance(x + 1e7), covariance(x), rtol=1e-7)


def test_the_mean_is_taken_off_to_the_last_digit():
    assert whiten(sample(50, 3) + 1e8).mean(dim=0).abs().max() < 1e-12


def test_covariance_of_float32_is_computed_in_float64():
    x = (sample(50, 3) + 1e4).float()
    assert covariance(x).dtype == torch.float64
    assert torch.equal(covariance(x), covariance(x.double()))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_whitened_batches_have_mean_zero_and_covariance_one(method, dtype, error, device):
    y = whiten(sample(100, 5, device=device, dtype=dtype), method, steps=25)
    assert y.dtype == dtype
    assert y.device.type == device
    assert all(each.error(y.cpu()) < error for each in (CENTRED, WHITE))


@pytest.mark.parametrize("method", METHODS)
def test_the_matrix_satisfies_its_definition(method):
    sigma = covariance(sample(50, 4))
    matrix = whitening_matrix(sigma, method, steps=25)
    identity = torch.eye(4, dtype=torch.float64)
    assert torch.allclose(matrix @ sigma @ matrix.T, identity, rtol=0, atol=1e-12)
    orthogonal = matrix @ torch.linalg.inv(whitening_matrix(sigma))
    assert torch.allclose(orthogonal @ orthogonal.T, identity, rtol=0, atol=1e-12)


def test_what_distinguishes_the_methods():
    sigma = covariance(sample(50, 4))
    zca, pca, cholesky = (whitening_matrix(sigma, method) for method in METHODS[:3])
    assert torch.allclose(zca, zca.T, rtol=0, atol=1e-14)
    assert torch.linalg.eigvalsh(zca).min() > 0
    assert (cholesky.triu(1) == 0).all()
    assert cholesky.diagonal().min() > 0
    # Rows of PCA are orthogonal, and the first belongs to the largest variance.
    lengths = pca @ pca.T
    assert torch.allclose(lengths, torch.diag(lengths.diagonal()), rtol=0, atol=1e-12)
    assert torch.allclose(1 / lengths.diagonal(), torch.linalg.eigvalsh(sigma).flip(0))
    # The iteration approaches ZCA's.
    iterated = whitening_matrix(sigma, "newton-schulz", steps=25)
    assert torch.allclose(iterated, zca, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_largest_entry_of_a_principal_axis_is_positive(seed):
    matrix = whitening_matrix(covariance(sample(50, 5, seed)), "pca")
    assert (matrix.gather(1, matrix.abs().argmax(dim=1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("m", [50, 3])
@pytest.mark.parametrize("method", METHODS)
def test_epsilon_shrinks_each_principal_variance(method, m):
    x = sample(m, 4)
    assert PRINCIPAL_VARIANCES.error(whiten(x, method, eps=0.5, steps=25), x, 0.5) < 1e-12
    assert (torch.linalg.eigvalsh(covariance(x)) < 1e-12).sum() == max(0, 5 - m)


def test_epsilon_keeps_the_axes_of_zca_and_of_pca_and_not_of_cholesky():
    x = sample(50, 4)
    axes = torch.linalg.eigh(covariance(x)).eigenvectors
    turned = {
        "zca": axes.T @ covariance(whiten(x, "zca", 0.5)) @ axes,
        "pca": covariance(whiten(x, "pca", 0.5)),
        "cholesky": covariance(whiten(x, "cholesky", 0.5)),
    }
    off = {name: (c - torch.diag(c.diagonal())).abs().max() for name, c in turned.items()}
    assert max(off["zca"], off["pca"]) < 1e-12
    assert off["cholesky"] > 0.01


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_each_group_is_whitened_by_itself(method, groups):
    x = sample(40, 6)
    y = whiten(x, method, groups=groups, steps=20)
    parts = [whiten(part, method, steps=20) for part in x.split(6 // groups, dim=1)]
    assert torch.allclose(y, torch.cat(parts, dim=1), rtol=0, atol=1e-13)
    blocks = covariance(y).reshape(groups, 6 // groups, groups, 6 // groups)
    for g in range(groups):
        error = (blocks[g, :, g] - torch.eye(6 // groups)).abs().max()
        assert error < 1e-10
    # Between groups correlations stay.
    assert groups == 1 or (covariance(y) - torch.eye(6)).abs().max() > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_groups_of_one_feature_are_standardization(method):
    x = sample(40, 6)
    y = whiten(x, method, eps=0.1, groups=6)
    exact = reference.forward(x.numpy(), eps=0.1).y
    assert abs(y.numpy() - exact).max() < 1e-12
    assert UNIT_VARIANCES.error(whiten(x, method, groups=6)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", METHODS)
def test_the_matrix_has_the_type_of_the_covariance(method, dtype):
    sigma = (covariance(sample(50, 4)) + torch.eye(4)).to(dtype)
    exact = whitening_matrix(sigma.double(), method)
    assert torch.equal(whitening_matrix(sigma, method), exact.to(dtype))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", METHODS)
def test_narrow_types_are_whitened_in_float64(method, dtype, device):
    x = sample(100, 5, device=device, dtype=dtype)
    wide = whiten(x.double(), method)
    assert torch.equal(whiten(x, method), wide.to(dtype))
    narrow = x.clone().requires_grad_()
    upstream = torch.ones_like(x).cumsum(dim=0)
    (gradient,) = torch.autograd.grad(whiten(narrow, method), narrow, upstream)
    assert gradient.dtype == dtype
    wide = x.double().requires_grad_()
    (exact,) = torch.autograd.grad(whiten(wide, method), wide, upstream.double())
    assert torch.equal(gradient, exact.to(dtype))


def test_pytorchs_float32_whitening_fails_at_an_offset_and_this_one_does_not():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator) * torch.logspace(-1, 1, 4) + 1e4
    centred = x - x.mean(dim=0)
    values, vectors = torch.linalg.eigh(x.T @ x / 256 - x.mean(0)[:, None] * x.mean(0))
    theirs = centred @ (vectors / values.clamp(min=1e-5).sqrt()) @ vectors.T
    assert (covariance(theirs) - torch.eye(4)).abs().max() > 0.5
    assert (covariance(whiten(x)) - torch.eye(4)).abs().max() < 1e-5


def test_zca_does_not_turn_and_cholesky_takes_one_feature_after_the_other():
    x = sample(40, 4)
    turned = {method: UNTURNED.error(whiten(x, method, steps=25), x) for method in METHODS}
    crossed = {method: TRIANGULAR.error(whiten(x, method, steps=25), x) for method in METHODS}
    assert [method for method in METHODS if turned[method] < 1e-12] == ["zca", "newton-schulz"]
    assert [method for method in METHODS if crossed[method] < 1e-12] == ["cholesky"]


def test_zca_follows_a_rotation():
    x, r = sample(40, 4), rotation(4)
    assert torch.allclose(whiten(x @ r.T), whiten(x) @ r.T, rtol=0, atol=1e-12)


def test_zca_moves_the_data_least():
    x = sample(40, 4)
    x = x - x.mean(dim=0)
    y = whiten(x)
    others = [whiten(x, "pca"), whiten(x, "cholesky")] + [
        y @ rotation(4, seed) for seed in range(20)
    ]
    assert all((y - x).norm() < (other - x).norm() for other in others)


@pytest.mark.parametrize(("m", "d"), [(5, 1), (4, 3), (8, 3)])
def test_rank_of_the_jacobian(m, d):
    jacobian = torch.autograd.functional.jacobian(whiten, sample(m, d)).reshape(m * d, m * d)
    rank = torch.linalg.matrix_rank(jacobian, rtol=1e-8).item()
    assert rank == m * d - d - d * (d + 1) // 2


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_that_is_too_small(method):
    with pytest.raises(ValueError, match=r"rank 3 in dimension 6 \(4 examples: rank at most 3\)"):
        whiten(sample(4, 6), method)
    assert whiten(sample(4, 6), method, eps=1e-3).isfinite().all()


def test_the_error_names_epsilon_and_no_batch_where_there_is_none():
    sigma = torch.diag(torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match="rank 1 in dimension 2 with eps = 0; a larger eps"):
        whitening_matrix(sigma)
    with pytest.raises(ValueError, match="rank 1 in dimension 2 with eps = 1e-20"):
        whitening_matrix(sigma, eps=1e-20)
    with pytest.raises(ValueError, match="rank 1 in dimension 3"):
        whitening_matrix(torch.diag(torch.tensor([1.0, 0.0, -1.0])), eps=0.5)


def test_rank_is_judged_by_the_precision_of_the_matrix():
    sigma = torch.diag(torch.tensor([1.0, 1e-9], dtype=torch.float64))
    assert whitening_matrix(sigma)[1, 1] == pytest.approx(1e-9**-0.5)
    with pytest.raises(ValueError, match="rank 1"):
        whitening_matrix(sigma.float())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            (torch.eye(2), "svd"),
            ValueError,
            "method: expected 'zca', .* got 'svd'",
        ),
        ((torch.eye(2), "zca", -1.0), ValueError, "eps: expected a number not below 0, got -1.0"),
        (
            (torch.eye(2), "zca", math.nan),
            ValueError,
            "eps: .* not below 0, got nan",
        ),
        ((torch.eye(2), "newton-schulz", 0.0, 0), ValueError, "steps: expected at least 1, got 0"),
        ((torch.eye(2), "zca", 0.0, 2.0), TypeError, "steps: expected an integer, got float"),
        ((torch.eye(2), "zca", 0.0, True), TypeError, "steps: expected an integer, got bool"),
        ((torch.ones(2, 3),), ValueError, r"covariance: expected a square .*, got .*\(2, 3\)"),
        ((torch.tensor([[1.0, 0.5], [0.4, 1.0]]),), ValueError, "expected a symmetric matrix"),
        ((torch.eye(2) * math.nan,), ValueError, "covariance: expected finite numbers"),
        (
            (torch.ones(3),),
            ValueError,
            r"covariance: .* square matrix \(\*, d, d\), got shape \(3,\)",
        ),
        ((torch.eye(2, dtype=torch.int64),), TypeError, "floating-point tensor, got torch.int64"),
        (([[1.0]],), TypeError, "covariance: expected a floating-point tensor, got list"),
    ],
)
def test_matrices_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        whitening_matrix(*arguments[:3], **dict(zip(["steps"], arguments[3:], strict=False)))


def test_inputs_that_are_refused():
    with pytest.raises(ValueError, match=r"x: expected a matrix \(rows, d\), got shape \(0, 3\)"):
        whiten(torch.ones(0, 3))
    with pytest.raises(TypeError, match=r"x: expected a floating-point tensor, got torch\.int64"):
        covariance(torch.ones(4, 3, dtype=torch.int64))
    for groups in (0, 2, -1):
        with pytest.raises(ValueError, match=f"groups: expected .*, got {groups}"):
            whiten(torch.ones(4, 3), groups=groups)
    with pytest.raises(TypeError, match=r"groups: expected an integer, got float"):
        whiten(torch.ones(4, 3), groups=1.0)


def test_one_singular_matrix_of_a_stack_is_refused():
    stack = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 1.0, 0.0])), torch.eye(3)])
    for method in METHODS:
        with pytest.raises(ValueError, match="rank 2 in dimension 3"):
            whitening_matrix(stack, method)
    with pytest.raises(ValueError, match=r"rank 1 in dimension 2 \(2 examples: rank at most 1\)"):
        whiten(sample(2, 6), groups=3)


def walked(eigenvalues, excess, rate, tolerance):
    left, steps = excess.clone(), 0
    while left.sum() > tolerance * excess.sum():
        left, steps = left * (1 - rate * eigenvalues) ** 2, steps + 1
    return steps


@pytest.mark.parametrize("rate", [None, 0.01, 0.15])
def test_gd_steps_counts_what_walking_counts(rate):
    eigenvalues = torch.tensor([0.5, 3.0, 10.0], dtype=torch.float64)
    excess = torch.tensor([1.0, 0.0, 4.0], dtype=torch.float64)
    for tolerance in (0.5, 0.1, 1e-6):
        expected = walked(eigenvalues, excess, rate or 2 / 10.5, tolerance)
        assert gd_steps(eigenvalues, excess, rate, tolerance) == expected


def test_gd_steps_in_special_cases():
    ones = torch.ones(3)
    assert gd_steps(ones, ones) == 1
    assert gd_steps(ones, torch.zeros(3)) == 0
    huge = gd_steps(torch.tensor([1e-12, 1.0], dtype=torch.float64), torch.tensor([1.0, 0.0]))
    assert huge == pytest.approx(0.25e12 * math.log(100), rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.ones(2), torch.ones(3)), r"one number per direction each, got shapes \(2,\) and"),
        ((torch.tensor([0.0, 1.0]), torch.ones(2)), "eigenvalues: expected positive numbers"),
        ((torch.ones(2), torch.ones(2), 2.0), "learning_rate: expected between 0 and 2, got 2"),
        ((torch.ones(2), torch.ones(2), 0.5, 1.0), "tolerance: expected between 0 and 1, got 1.0"),
        ((torch.ones(2), -torch.ones(2)), "excess: expected numbers not below 0"),
    ],
)
def test_descents_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gd_steps(*arguments)


def test_public_names_exist():
    assert all(hasattr(whitening, name) for name in whitening.__all__)
